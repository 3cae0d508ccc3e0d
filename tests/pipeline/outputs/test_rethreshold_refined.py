"""Masks rebuilt from stored heat and pixels against refined masks made directly."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco

from jobs.annotate import main
from jobs.rethreshold import main as rethreshold
from pipeline.models.demo import ASSETS
from pipeline.outputs.predictions import Predictions
from tests.pipeline.stand_ins import Annotate, MakeConfig, MakeTar, Write

LOCAL = ["--engine.executor", "local", "--engine.threads", "1"]
FEW = ["--limit_shards", "1", "--limit_samples", "6"]
WINNER = ["--mask.overlap", "winner"]
FINE = [*WINNER, "--mask.refine", "regions_pamr", "--mask.threshold", "0.4"]
SHARDS = str(ASSETS / "shards")


def rows_of(output: Path) -> dict[tuple[int, int], dict]:
    rows = pq.read_table(output / "annotations").to_pylist()
    return {(row["sample_index"], row["prompt_index"]): row for row in rows}


def ious(first: Path, second: Path) -> list[float]:
    one, other = rows_of(first), rows_of(second)
    return [
        float(coco.iou([row["segmentation"]], [other[pair]["segmentation"]], [0])[0][0])
        if pair in other
        else 0.0
        for pair, row in one.items()
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, flags in (("plain", WINNER), ("fine", FINE)):
        where = ["--input", SHARDS, "--output", str(folder / name)]
        assert main([*LOCAL, *FEW, *where, *flags]) == 0
    return {name: folder / name for name in ("plain", "fine")}


def test_refined_masks_are_others_and_stored_heat_is_the_same(runs: dict[str, Path]) -> None:
    plain, fine = rows_of(runs["plain"]), rows_of(runs["fine"])
    both = plain.keys() & fine.keys()
    assert len(both) > 5
    assert np.mean(ious(runs["plain"], runs["fine"])) < 0.95
    for pair in both:
        for name in ("heat", "heat_shape", "raw_max", "score"):
            assert plain[pair][name] == fine[pair][name]
    owned = [coco.decode(row["segmentation"]) for key, row in fine.items() if key[0] == 0]
    assert np.sum(owned, axis=0).max() == 1  # a pixel still belongs to one prompt


@pytest.mark.parametrize(("source", "made_with"), [("plain", "none"), ("fine", "regions_pamr")])
def test_with_the_images_a_refined_run_is_rebuilt(
    runs: dict[str, Path],
    tmp_path: Path,
    source: str,
    made_with: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--source", str(runs[source]), "--output", str(tmp_path), "--images", SHARDS]
    assert rethreshold([*arguments, *FINE]) == 0
    assert float(capsys.readouterr().out.split()[-1]) > 0.97
    assert np.mean(ious(runs["fine"], tmp_path)) > 0.97
    made = Predictions(str(tmp_path), "--source").identity
    assert made["mask"]["refine"] == "regions_pamr"
    assert made["rethresholded"]["mask"].get("refine", "none") == made_with


def test_masks_can_be_made_plain_again_without_images(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", str(runs["fine"]), "--output", str(tmp_path)]
    assert rethreshold([*arguments, *WINNER]) == 0
    assert "they need --images" in capsys.readouterr().out
    pairs = rows_of(runs["fine"]).keys() & rows_of(runs["plain"]).keys()
    found, expected = rows_of(tmp_path), rows_of(runs["plain"])
    for pair in pairs & found.keys():
        one, other = found[pair]["segmentation"], expected[pair]["segmentation"]
        assert coco.iou([one], [other], [0])[0][0] > 0.9


def test_images_are_found_as_the_run_found_them(
    tar: MakeTar,
    labelled: Callable[..., list[tuple[str, bytes]]],
    picture: Callable[..., bytes],
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
    tmp_path: Path,
) -> None:
    members = labelled("photo.000", ["dog"]) + labelled("photo.001", ["cat"])
    others = [(f"photo.00{n}.png", picture(n, size=(64, 48), format="PNG")) for n in (0, 1)]
    folder = write_shards(a=tar(sorted(members + others)))
    named: dict[str, Any] = {"key_end": "last_dot", "image_field": "png"}
    source = annotate(make_config(input=folder, **named))
    target = tmp_path / "target"
    arguments = ["--source", source.output, "--output", str(target), "--images", folder]
    assert rethreshold([*arguments, "--mask.refine", "pamr"]) == 0
    assert {row["key"] for row in rows_of(target).values()} == {"photo.000", "photo.001"}
    assert {row["width"] for row in rows_of(target).values()} == {64}


def test_refusals(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", str(runs["plain"]), "--output", str(tmp_path / "out"), *FINE]

    def refusal(*more: str) -> str:
        assert rethreshold([*arguments, *more]) == 2
        said = capsys.readouterr().err.strip()
        assert said.count("\n") == 0
        return said

    assert "--mask.refine regions_pamr needs the pixels" in refusal()
    (shard,) = (path for path in sorted(Path(SHARDS).iterdir())[:1])
    other = str(sorted(Path(SHARDS).iterdir())[1])
    assert "1 shards of the source are not among them" in refusal("--images", other)
    assert not (tmp_path / "out").exists()

    # The same name below another root, with an image that has gone, one that comes after the
    # others, and one of another size.
    (key, *_) = [row["key"] for row in rows_of(runs["plain"]).values()]
    for change, said in (
        ("gone", "is not in the shard"),
        ("last", "is not in the shard where it was, before image"),
        ("smaller", "is 9x9 now, and was"),
    ):
        root = tmp_path / change
        root.mkdir()
        copy_with(shard, root / shard.name, key, change)
        run = tmp_path / f"run-{change}"
        where = ["--input", str(shard), "--input_root", str(shard.parent), "--output", str(run)]
        assert main([*LOCAL, *FEW, *where]) == 0
        capsys.readouterr()
        arguments[1] = str(run)
        found = refusal("--images", str(root / shard.name), "--input_root", str(root))
        assert f"image {key} {said}" in found


def copy_with(shard: Path, target: Path, key: str, change: str) -> None:
    last: list[tuple[tarfile.TarInfo, bytes]] = []
    with tarfile.open(shard) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = old.extractfile(member).read()
            if member.name.startswith(f"{key}."):
                if change == "gone":
                    continue
                if change == "last":
                    last.append((member, data))
                    continue
                if member.name.endswith(".jpg"):
                    changed = io.BytesIO()
                    Image.new("RGB", (9, 9)).save(changed, "JPEG")
                    data = changed.getvalue()
                    member.size = len(data)
            new.addfile(member, io.BytesIO(data))
        for member, data in last:
            new.addfile(member, io.BytesIO(data))
