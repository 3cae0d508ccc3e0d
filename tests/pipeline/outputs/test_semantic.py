"""One label per pixel: small cases by hand."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError
from pipeline.outputs.masks import encode
from pipeline.outputs.semantic import BACKGROUND, IGNORE, SemanticConfig, semantic_map

LABELS = {"cat": 1, "dog": 2, "sky": 0}
LEFT = np.array([[255, 0], [255, 0]], np.uint8)
TOP = np.array([[255, 255], [0, 0]], np.uint8)


def row(category: str, heat: np.ndarray | None, **fields: Any) -> dict[str, Any]:
    """At 2 x 2 pixels, where heat is its own upsampling."""
    (rle,) = encode(np.asfortranarray(fields.pop("mask", LEFT > 0).astype(np.uint8)[..., None]))
    plain = dict(sample_index=0, prompt_index=0, score=0.2, threshold=0.5, heat_mean=0.8)
    stored: dict[str, Any] = dict(heat=None, heat_shape=None)
    if heat is not None:
        stored = dict(heat=heat.tobytes(), heat_shape=list(heat.shape))
    return {"category": category, "segmentation": rle, **plain, **stored, **fields}


def labelled(
    *rows: dict[str, Any], size: tuple[int, int] = (2, 2), **settings: Any
) -> list[list[int]]:
    return semantic_map(rows, LABELS, size, SemanticConfig(**settings)).tolist()


def test_a_pixel_belongs_to_the_hottest_mask() -> None:
    cat = np.array([[255, 153], [0, 0]], np.uint8)  # 1, 0.6
    dog = np.array([[0, 204], [255, 51]], np.uint8)  # 0.8, 1, 0.2
    assert labelled(row("cat", cat), row("dog", dog)) == [[1, 2], [2, 0]]
    assert labelled(row("cat", cat), row("dog", dog), level=0.7) == [[1, 2], [2, 0]]
    assert labelled(row("cat", cat), row("dog", dog), level=0.1) == [[1, 2], [2, 2]]


def test_of_equal_heat_the_lower_label_wins_whatever_the_order() -> None:
    for rows in ([row("cat", LEFT), row("dog", TOP)], [row("dog", TOP), row("cat", LEFT)]):
        assert labelled(*rows) == [[1, 2], [1, 0]]


def test_the_level_is_0_45_another_one_or_each_masks_own_threshold() -> None:
    heat = np.array([[255, 118], [112, 0]], np.uint8)  # 1, 0.46, 0.44, 0
    for threshold in (0.3, 0.6):
        assert labelled(row("cat", heat, threshold=threshold)) == [[1, 1], [0, 0]]
        assert labelled(row("cat", heat, threshold=threshold), level=0.4) == [[1, 1], [1, 0]]
    assert labelled(row("cat", heat, threshold=0.3), level="own") == [[1, 1], [1, 0]]
    assert labelled(row("cat", heat, threshold=0.6), level="own") == [[1, 0], [0, 0]]


def test_between_two_levels_pixels_are_ignored() -> None:
    heat = np.array([[255, 115], [51, 0]], np.uint8)  # 1, 0.45, 0.2, 0
    made = labelled(row("dog", heat), background="band", band=(0.4, 0.5))
    assert made == [[2, IGNORE], [BACKGROUND, BACKGROUND]]


def test_background_prompts_take_their_pixels() -> None:
    cat = np.array([[255, 102], [51, 0]], np.uint8)
    sky = np.array([[0, 204], [26, 255]], np.uint8)
    rows = [row("cat", cat), row("sky", sky)]
    assert labelled(*rows, background="prompts", prompts=["sky"]) == [[1, 0], [1, 0]]
    own = labelled(*rows, background="prompts", prompts=["sky"], level="own")
    assert own == [[1, 0], [0, 0]], "at most 0.5 is above no threshold"


def test_without_heat_masks_compete_as_a_whole() -> None:
    rows = [
        row("cat", None, mask=LEFT > 0, heat_mean=0.6, score=0.3),
        row("dog", None, mask=TOP > 0, heat_mean=0.7, score=-0.1),
    ]
    assert labelled(*rows, level="own") == [[2, 2], [1, 0]]
    assert labelled(*rows, winner="score") == [[1, 2], [1, 0]]
    for settings in ({}, {"level": 0.4}, {"background": "band"}):
        with pytest.raises(ConfigError, match=r"made with --mask.*--semantic\.level own"):
            labelled(*rows, **settings)


def test_at_another_size_heat_is_upsampled_and_masks_are_stretched() -> None:
    grid = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    up = F.interpolate(grid[None, None], (6, 4), mode="bilinear")[0, 0]
    heat = (grid * 255).to(torch.uint8).numpy()
    assert labelled(row("cat", heat), size=(6, 4)) == (up > 0.45).int().tolist()
    assert labelled(row("cat", None), size=(4, 4), level="own") == [[1, 1, 0, 0]] * 4


def test_no_masks_and_categories_without_a_label() -> None:
    assert labelled() == [[0, 0], [0, 0]]
    assert labelled(row("bird", LEFT)) == [[0, 0], [0, 0]]


def test_labels_are_dense_and_by_name() -> None:
    config = SemanticConfig(background="prompts", prompts=["sky"])
    assert config.labels(["sky", "dog", "ant"]) == {"sky": 0, "ant": 1, "dog": 2}
    with pytest.raises(ConfigError, match=r"no 'sky' \(did you mean ski\?\)"):
        config.labels(["ski"])
    many = [f"{n}" for n in range(255)]
    with pytest.raises(ConfigError, match="255 categories do not fit"):
        SemanticConfig().labels(many)
    assert max(SemanticConfig().labels(many[1:]).values()) == 254


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"band": (0.5, 0.4)}, "two levels"),
        ({"level": 1.0}, "must be from 0 to 1"),
        ({"prompts": ["sky"]}, "goes with"),
        ({"background": "prompts"}, "goes with"),
        ({"winner": "score", "level": 0.5}, "masks as they are"),
        ({"background": "band", "level": 0.5}, "no effect with --semantic.background band"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SemanticConfig(**settings)


def test_refined_masks_are_taken_as_they_are() -> None:
    plain, refined = {"mask": {}}, {"mask": {"refine": "pamr"}}
    for rule in (SemanticConfig(), SemanticConfig(level="own")):
        assert rule.of_run(plain) == rule
        assert rule.of_run(refined) == SemanticConfig(winner="score")
    grass = SemanticConfig(background="prompts", prompts=["grass"])
    assert grass.of_run(refined).prompts == ["grass"]
    for rule in (SemanticConfig(level=0.3), SemanticConfig(background="band")):
        with pytest.raises(ConfigError, match="is not refined as its masks are"):
            rule.of_run(refined)
