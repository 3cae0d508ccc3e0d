"""The measures of the demo's quality table, and the bench."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import AnnotateConfig, RunConfig
from pipeline.demo.bench import bounds, coverage
from pipeline.demo.map_quality import LEVELS, ious_at, measure
from pipeline.demo.mask_scores import Pair, Truth
from pipeline.demo.quality import fresh_scenes, main
from pipeline.demo.scenes import Scene
from pipeline.evaluation.segmentation.precision import average_precision
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import PromptExplainer
from pipeline.models.loading import LoadedClip
from pipeline.outputs.annotations import Annotation

TRUTH = np.array([[True, False], [False, True]])


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], 1.0),
        ([[0.5, 0.5], [0.5, 0.5]], 0.5),  # one value: all pixels are found at once
        ([[0.9, 0.8], [0.1, 0.7]], (1 + 2 / 3) / 2),
        ([[0.1, 0.9], [0.8, 0.2]], (1 / 3 + 2 / 4) / 2),
        ([[0.9, 0.9], [0.1, 0.1]], (1 / 2 + 2 / 4) / 2),
    ],
)
def test_average_precision(heat: list[list[float]], expected: float) -> None:
    assert average_precision(np.array(heat), TRUTH) == pytest.approx(expected)


KEYS = {"mask_miou", "band_iou", "boundary_f", "ap", "ap50", "ap75", "p_miou", "bad_share"}


def scored(folder: Path, *arguments: str) -> dict[str, Any]:
    path = folder / "figures.json"
    assert main(["--engine.threads", "1", "--json", str(path), *arguments]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_bench_scores_the_masks_of_a_run(tmp_path: Path) -> None:
    """Plain masks are heat above 0.5, which `measure` has from the heat itself."""
    found = scored(tmp_path, "--seed", "202", "--scenes", "6")
    scenes = fresh_scenes(tmp_path, 202, 6)
    (shard,) = find_shards([str(tmp_path)])
    stored = [
        Scene(sample.pixels.permute(1, 2, 0).numpy(), scene.masks)
        for scene, sample in zip(scenes, ShardReader(lambda raw: raw.key)(shard), strict=True)
    ]
    expected = measure(LoadedClip(RunConfig()), stored)
    assert found.keys() >= KEYS
    assert all(0 <= found[key] <= 1 for key in KEYS)
    assert (found["seed"], found["images"], found["threshold"]) == (202, 6, 0.5)
    assert found["objects"] == sum(len(scene.masks) for scene in scenes)
    assert found["mask_miou"] == pytest.approx(expected.mask_miou, abs=1e-4)
    assert found["p_miou"] == pytest.approx(expected.p_miou)
    assert found["settings"] == AnnotateConfig().identity()


def test_thresholds_share_maps_and_the_best_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    explain = PromptExplainer.__call__
    monkeypatch.setattr(
        PromptExplainer,
        "__call__",
        lambda self, samples: batches.append(1) or explain(self, samples),
    )
    found = scored(
        tmp_path,
        "--seed",
        "202",
        "--scenes",
        "6",
        "--thresholds",
        "[0.2, 0.45]",
        "--preset",
        "balanced",
    )
    assert len(batches) == 1
    by_threshold = found["mask_miou_by_threshold"]
    assert by_threshold.keys() == {"0.2", "0.45"}
    assert found["threshold"] == 0.45
    assert found["mask_miou"] == by_threshold["0.45"] > by_threshold["0.2"]
    assert found["settings"]["mask"]["threshold"] == 0.45
    assert found["settings"]["mask"]["overlap"] == "winner"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", "1"), "quality: --seed 1: the model was trained on these scenes"),
        (("--output", "out"), "quality: --output: the bench brings its own images"),
        (("--scenes", "0"), "quality: --scenes 0: must be at least 1"),
        (("--prompts.source", "caption"), "quality: --prompts.source caption: here it is labels"),
        (("--seed", "5", "--photographs", "x"), "quality: --photographs, --seed: give one"),
        (("--photographs", "nowhere"), "quality: --photographs nowhere: "),
    ],
)
def test_what_the_bench_cannot_do_is_a_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def of_grid(truth: np.ndarray) -> float:
    prompt = Prompt(0, "cat", 1, ("cat",))
    heat = torch.zeros((2, 2), dtype=torch.uint8)
    nothing = Annotation(prompt, "cat", 0.0, 0.0, 0.0, heat, None, "flat_map")
    pair = Pair.of(0, Truth({"cat": truth}), nothing)
    return bounds([pair], 12)["patches"]["mask_miou"]


def test_bounds_of_a_grid() -> None:
    """A square of 6 patches by 6 is whole patches; moved by half a patch, its rim is half."""
    truth = np.zeros((96, 96), dtype=bool)
    truth[16:64, 16:64] = True
    moved = np.roll(truth, (4, 4), (0, 1))
    assert (coverage(truth, 12) == truth[::8, ::8]).all()
    assert coverage(moved, 12)[2, 2:9].tolist() == [0.25, *[0.5] * 5, 0.25]
    assert of_grid(truth) == 1
    assert of_grid(moved) == 25 * 64 / 48**2


def test_iou_at_every_level_is_that_of_the_mask_above_it() -> None:
    heat = np.random.default_rng(0).random((20, 30))
    heat[0, :5] = LEVELS[10]
    truth = np.random.default_rng(1).random((20, 30)) > 0.6
    expected = [(truth & (heat > t)).sum() / (truth | (heat > t)).sum() for t in LEVELS]
    np.testing.assert_allclose(ious_at(LEVELS, heat, truth), expected, rtol=1e-12)
