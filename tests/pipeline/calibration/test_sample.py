"""Pairs and pixels of a small run whose truth is known, counted by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.calibration.overlaps import THRESHOLDS
from pipeline.calibration.sample import LabelledSample, _Reader
from pipeline.calibration.truth import Known
from pipeline.errors import ConfigError
from pipeline.evaluation.segmentation.truth import ClassMasks
from pipeline.outputs.predictions import ShardMasks
from pipeline.outputs.records import Commit

COMMIT = Commit(
    **dict(shard="s", fingerprint="", uri="", bytes=0, samples=0, statuses={}, rejects={}),
    **dict(prompts=0, prompts_cut=0, masks=0, files={}, seconds=0.0, attempt=1),
    **dict(degraded=False, incomplete=""),
)
NAMES = ["Cat", "dog", "owl"]
CODES = {name.lower(): code for code, name in enumerate(NAMES)}


def row(sample: int, name: str, score: float, heat: list[int]) -> dict[str, Any]:
    """A mask on an image of 2 x 2 pixels, as large as its grid: heat of 255 is 1."""
    image = {"sample_index": sample, "key": f"k{sample}", "height": 2, "width": 2}
    return image | {
        "category": name,
        "score": score,
        "heat": bytes(heat),
        "heat_shape": [2, 2],
    }


ROWS = [
    row(0, "Cat", 0.2, [0, 0, 0, 255]),
    row(0, "Cat", 0.4, [255, 204, 0, 102]),  # 1, 0.8, 0, 0.4
    row(0, "dog", 0.3, [0, 255, 127, 51]),
    row(1, "owl", 0.1, [255, 0, 0, 0]),
]
IMAGES = [
    {"key": "k0", "status": "empty", "sample_index": 0, "absent": []},
    {
        "key": "k1",
        "status": "empty",
        "sample_index": 1,
        "absent": [{"prompt_index": 1, "category": "dog", "score": 0.05}],
    },
    {"key": "k2", "status": "rejected", "sample_index": 2, "absent": []},
    {"key": "k3", "status": "empty", "sample_index": 3, "absent": []},
]


def truth(shard: str, key: str) -> Known | None:
    """Cat left, dog right, where the lower right pixel does not count; nothing known of k3."""
    if key == "k0":
        masks = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 1]]], dtype=bool)
        ignored = np.array([[0, 0], [0, 1]], dtype=bool)
        found = ClassMasks(["cat", "Dog"], masks, ignored)
        return Known(frozenset({"cat", "dog", "zebra"}), found)
    return Known(frozenset({"cat"})) if key == "k1" else None


def read(**mask: object) -> LabelledSample:
    reader = _Reader(CODES, {"mask": {"heat": True, "rule": "fixed"} | mask})
    shard = ShardMasks(COMMIT, pa.Table.from_pylist(IMAGES), pa.Table.from_pylist(ROWS))
    assert reader.add(shard, truth) == {"k0": 0, "k1": 1}
    return reader.sample(NAMES, "the run")


def test_pairs_are_those_that_have_a_score() -> None:
    sample = read()
    assert (sample.images, sample.unknown, sample.missed.tolist()) == (2, 1, [0, 1])
    assert sample.image.tolist() == [0, 0, 1, 1]
    assert sample.label.tolist() == [0, 1, 1, 2]
    assert sample.score.tolist() == [0.4, 0.3, 0.05, 0.1]
    assert sample.present.tolist() == [True, True, False, False]


def at(threshold: float) -> int:
    return int(np.abs(THRESHOLDS - threshold).argmin())


def test_pixels_of_what_is_there() -> None:
    spots = read().overlaps
    assert spots is not None and spots.by_pair
    assert (spots.image.tolist(), spots.label.tolist()) == ([0, 0], [0, 1])
    half = at(0.5)  # cat: upper two of three pixels; dog: upper right, and lower left with 0.498
    assert [spots.tp[:, half].tolist(), spots.fp[:, half].tolist()] == [[1, 1], [1, 0]]
    assert spots.fn[:, half].tolist() == [1, 0]
    assert spots.fp[:, at(0.49)].tolist() == [1, 1]


def test_where_the_winner_takes_a_pixel_the_others_have_no_heat_there() -> None:
    spots = read(overlap="winner").overlaps
    assert spots is not None
    half = at(0.5)  # the upper right pixel is the dog's
    assert [spots.tp[:, half].tolist(), spots.fp[:, half].tolist()] == [[1, 1], [0, 0]]


def test_points_do_not_tell_what_a_map_loses_to_others() -> None:
    for mask, why in (({}, ""), ({"overlap": "winner"}, "--mask.overlap winner")):
        reader = _Reader(CODES, {"mask": {"heat": True, "rule": "fixed"} | mask})
        reader.take_points()
        assert why in reader.why_none and bool(why) == bool(reader.why_none)


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ({"heat": False}, "--mask.heat false"),
        ({"rule": "mean"}, "--mask.rule mean"),
        ({"refine": "pamr"}, "refined"),
    ],
)
def test_without_a_heat_that_tells_the_masks_there_are_no_thresholds(
    mask: dict[str, object], why: str
) -> None:
    sample = read(**mask)
    assert sample.overlaps is None
    assert why in sample.why_none


def test_a_sample_that_says_nothing_is_refused() -> None:
    reader = _Reader(CODES, {"mask": {"heat": True, "rule": "fixed"}})
    with pytest.raises(ConfigError, match="nothing is known of any of its 0 images"):
        reader.sample(NAMES, "the run")
    reader.add(
        ShardMasks(COMMIT, pa.Table.from_pylist(IMAGES[1:2]), pa.Table.from_pylist(ROWS)), truth
    )
    with pytest.raises(ConfigError, match="of 2 pairs, all are absent"):
        reader.sample(NAMES, "the run")


def test_two_samples_that_are_one_image_of_the_truth_are_refused() -> None:
    reader = _Reader(CODES, {"mask": {"heat": True, "rule": "fixed"}})
    images = [{**IMAGES[0], "key": f"{folder}/k0"} for folder in "xy"]
    shard = ShardMasks(COMMIT, pa.Table.from_pylist(images), pa.Table.from_pylist(ROWS))
    with pytest.raises(ConfigError, match=r"x/k0 of s and y/k0 of s are both k0 in the truth"):
        reader.add(shard, lambda shard, key: Known(frozenset({"cat"}), image="k0"))
