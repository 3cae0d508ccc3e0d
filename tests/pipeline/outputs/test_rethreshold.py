"""Masks rebuilt from stored heat against masks made directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from jobs.annotate import main as annotate
from jobs.rethreshold import main as rethreshold
from pipeline.outputs.predictions import Predictions

THRESHOLDS = ("0.3", "0.5", "0.7")
LOCAL = ["--engine.executor", "local", "--engine.threads", "1"]


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A little of the demo annotated at each threshold."""
    folder = tmp_path_factory.mktemp("direct")
    for threshold in THRESHOLDS:
        output = str(folder / threshold)
        flags = ["--mask.threshold", threshold, "--limit_samples", "5"]
        assert annotate([*LOCAL, "--output", output, *flags]) == 0
    return {threshold: folder / threshold for threshold in THRESHOLDS}


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_rebuilt_masks_are_those_of_a_direct_run(
    direct: dict[str, Path], tmp_path: Path, threshold: str
) -> None:
    arguments = ["--source", str(direct["0.5"]), "--output", str(tmp_path)]
    assert rethreshold([*arguments, "--mask.threshold", threshold]) == 0
    rebuilt, expected = _masks(tmp_path), _masks(direct[threshold])
    assert rebuilt.keys() == expected.keys()
    ious = [_iou(rebuilt[pair], expected[pair]) for pair in expected]
    assert np.mean(ious) >= 0.97
    for row in rebuilt.values():
        assert row["threshold"] == pytest.approx(float(threshold))
        assert coco.decode(row["segmentation"]).sum() == row["area"]


@pytest.fixture(scope="module")
def clipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """TextSpan's masks at two thresholds, of raw maps that are cut off at 0."""
    folder = tmp_path_factory.mktemp("clipped")
    for threshold in ("0.3", "0.5"):
        flags = ["--method", "text_span", "--mask.threshold", threshold, "--limit_samples", "5"]
        assert annotate([*LOCAL, *flags, "--output", str(folder / threshold)]) == 0
    return {threshold: folder / threshold for threshold in ("0.3", "0.5")}


def test_rebuilt_masks_of_clipped_maps_are_those_of_a_direct_run(
    clipped: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ["--source", str(clipped["0.5"]), "--output", str(tmp_path / "a")]
    assert rethreshold([*arguments, "--mask.threshold", "0.3"]) == 0
    rebuilt, expected = _masks(tmp_path / "a"), _masks(clipped["0.3"])
    assert rebuilt.keys() == expected.keys()
    assert np.mean([_iou(rebuilt[pair], expected[pair]) for pair in expected]) > 0.99
    assert min(row["raw_min"] for row in rebuilt.values()) < 0
    again = ["--source", str(tmp_path / "a"), "--output", str(tmp_path / "b")]
    assert rethreshold([*again, "--mask.threshold", "0.5"]) == 0
    back, first = _masks(tmp_path / "b"), _masks(clipped["0.5"])
    assert np.mean([_iou(back[pair], first[pair]) for pair in first]) > 0.99


def test_every_shard_of_clipped_maps_has_their_column(clipped: dict[str, Path]) -> None:
    for path in (clipped["0.5"] / "annotations").iterdir():
        schema = pq.read_schema(path)
        assert "raw_min" in schema.names
        assert json.loads(schema.metadata[b"heat_order"]) == "upsample_clip_normalise"


def test_the_printed_iou_is_that_at_the_sources_threshold(
    direct: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rethreshold(["--source", str(direct["0.3"]), "--output", str(tmp_path)]) == 0
    printed = float(capsys.readouterr().out.split()[-1])
    rethreshold(
        [
            "--source",
            str(direct["0.3"]),
            "--output",
            str(tmp_path / "same"),
            "--mask.threshold",
            "0.3",
        ]
    )
    rebuilt, own = _masks(tmp_path / "same"), _masks(direct["0.3"])
    assert printed == pytest.approx(np.mean([_iou(rebuilt[p], own[p]) for p in own]), abs=1e-3)


def test_small_masks_are_dropped_and_counted(direct: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["--source", str(direct["0.5"]), "--output", str(tmp_path)]
    assert rethreshold([*arguments, "--mask.min_area", "0.05", "--mask.heat", "false"]) == 0
    rows = pq.read_table(tmp_path / "annotations").to_pylist()
    assert rows
    assert all(row["area"] >= 0.05 * row["height"] * row["width"] for row in rows)
    assert all(row["heat"] is None for row in rows)
    images = pq.read_table(tmp_path / "images").to_pylist()
    dropped = sum(r["count"] for image in images for r in image["without_mask"])
    assert len(rows) + dropped == sum(image["prompts"] for image in images)
    assert sum(image["masks"] for image in images) == len(rows)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["masks"], summary["shards"]) == (len(rows), 3)


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with prompts that compete."""
    folder = tmp_path_factory.mktemp("winner")
    flags = ["--mask.overlap", "winner", "--limit_samples", "5", "--output", str(folder)]
    assert annotate([*LOCAL, *flags]) == 0
    return folder


def test_prompts_of_an_image_compete_from_stored_heat_as_in_a_direct_run(
    direct: dict[str, Path], winner: Path, tmp_path: Path
) -> None:
    arguments = ["--source", str(direct["0.5"]), "--output", str(tmp_path)]
    assert rethreshold([*arguments, "--mask.overlap", "winner"]) == 0
    rebuilt, expected = _masks(tmp_path), _masks(winner)
    assert rebuilt.keys() == expected.keys()
    assert np.mean([_iou(rebuilt[pair], expected[pair]) for pair in expected]) >= 0.97
    before = _masks(direct["0.5"])
    assert sum(row["area"] for row in rebuilt.values()) < sum(r["area"] for r in before.values())
    images: dict[str, Any] = {}
    for (key, _), row in rebuilt.items():
        images[key] = images.get(key, 0) + coco.decode(row["segmentation"]).astype(int)
    assert max(pixels.max() for pixels in images.values()) == 1


def test_the_printed_iou_of_a_run_whose_prompts_competed(
    winner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rethreshold(["--source", str(winner), "--output", str(tmp_path)]) == 0
    assert float(capsys.readouterr().out.split()[-1]) > 0.97
    made = Predictions(str(tmp_path), "--source").identity
    assert "overlap" not in made["mask"]
    assert made["rethresholded"]["mask"]["overlap"] == "winner"


def test_masks_that_may_overlap_have_the_identity_of_before(
    direct: dict[str, Path], tmp_path: Path
) -> None:
    assert rethreshold(["--source", str(direct["0.5"]), "--output", str(tmp_path)]) == 0
    made = Predictions(str(tmp_path), "--source").identity
    before = {"rule": "fixed", "threshold": 0.5, "min_area": 0.0, "heat": True}
    assert made["mask"] == made["rethresholded"]["mask"] == before


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    arguments = ["--source", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    assert rethreshold(arguments) == 2
    assert "no annotation run has committed there" in capsys.readouterr().err
    assert rethreshold([*arguments, "--input_root", "/data"]) == 2
    assert "--input_root: has no effect without --images" in capsys.readouterr().err
    source = str(tmp_path / "source")
    one = ["--limit_shards", "1", "--limit_samples", "2", "--mask.heat", "false"]
    assert annotate([*LOCAL, *one, "--output", source]) == 0
    assert rethreshold(["--source", source, "--output", str(tmp_path / "out")]) == 2
    assert "--mask.heat false" in capsys.readouterr().err


def _masks(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    rows = pq.read_table(output / "annotations").to_pylist()
    return {(row["key"], row["prompt_index"]): row for row in rows}


def _iou(first: dict[str, Any], second: dict[str, Any]) -> float:
    one: Any = [first["segmentation"]]
    other: Any = [second["segmentation"]]
    return float(coco.iou(one, other, [0])[0][0])
