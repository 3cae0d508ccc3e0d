"""What decoding at a scale changes in masks, on enlarged scenes of the demo."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from pipeline.demo import decoding
from pipeline.demo.bundle import write_tar
from pipeline.demo.decoding import main
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.tars import read_samples
from pipeline.models.demo import ASSETS
from pipeline.outputs.annotations import Annotated, Annotation
from pipeline.outputs.masks import RLE, Mask

FEW = ["--input", str(ASSETS / "shards"), "--limit_shards", "1", "--limit_samples", "3"]


def test_masks_of_smaller_pictures_are_those_of_whole_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    flags = [
        "--longer",
        "[0, 1001]",
        "--factors",
        "[2]",
        "--noise",
        "[0, 0.4]",
        "--json",
        str(file),
    ]
    assert main([*FEW, *flags, "--engine.threads", "1"]) == 0
    as_they_are, turned, again, same, noisy, enlarged, *_ = json.loads(file.read_text())["rows"]
    assert (as_they_are["changed"], as_they_are["masks"]) == (0, 0)  # 160 pixels
    assert (same["input"], same["mean_iou"], same["score"]) == (0, 1, 0)
    assert (turned["floor"], again["floor"]) == ("columns first", "saved again")
    assert 0 < turned["input"] < again["input"] and again["mean_iou"] < turned["mean_iou"] < 1
    assert noisy["input"] == pytest.approx(0.4, abs=0.02) and noisy["mean_iou"] < 1
    assert enlarged["changed"] == enlarged["images"] == 3
    assert enlarged["masks"] > 3 and enlarged["mean_iou"] > 0.97
    assert 0 < enlarged["input"] < 1 and enlarged["score"] < 0.02
    assert "3 of 3 changed" in capsys.readouterr().out


def test_photographs_are_told_apart_whatever_their_shards_call_them(tmp_path: Path) -> None:
    """Two shards have the same keys, which end at the last dot, images of another field, and one
    that is none.
    """
    folder, file = tmp_path / "in", tmp_path / "found.json"
    folder.mkdir()
    for number, path in enumerate(sorted((ASSETS / "shards").glob("*.tar"))[:2]):
        with path.open("rb") as stream:
            scene = next(read_samples(stream))
        members = [("v.1.pic", scene.fields["jpg"]), ("v.1.json", scene.fields["json"])]
        members += [("w.1.pic", b"no image"), ("w.1.json", scene.fields["json"])]
        write_tar(folder / f"{number}.tar", iter(members))
    flags = ["--longer", "[0, 1001]", "--factors", "[2]", "--noise", "[0]", "--json", str(file)]
    naming = ["--key_end", "last_dot", "--image_field", "pic"]
    assert main(["--input", str(folder), *naming, *flags, "--engine.threads", "1"]) == 0
    rows = json.loads(file.read_text())["rows"]
    _, _, saved, same, enlarged, _, _, same_enlarged = rows
    assert saved["floor"] == "saved again" and saved["changed"] == 2
    for row in (same, same_enlarged):
        assert (row["images"], row["changed"], row["input"], row["mean_iou"]) == (2, 2, 0, 1)
    assert enlarged["changed"] == 2 and enlarged["mean_iou"] > 0.9


def test_masks_are_paired_by_what_was_looked_for() -> None:
    """A prompt may be taken for present in one decoding alone."""

    def annotation(index: int, rows: int, score: float) -> Annotation:
        pixels = np.zeros((8, 8), dtype=np.uint8, order="F")
        pixels[:rows] = 1
        encoded = coco.encode(pixels)
        segmentation = RLE(size=[8, 8], counts=encoded["counts"].decode())
        mask = Mask(segmentation, 8 * rows, [0.0, 0.0, 8.0, float(rows)], 1.0, 0.5)
        prompt = Prompt(index, "dog", 1, (f"{index}",))
        heat = torch.zeros((1, 1), dtype=torch.uint8)
        return Annotation(prompt, f"{index}", score, 0.0, 1.0, heat, mask, None)

    def photograph(*found: Annotation) -> decoding._Annotated:
        pixels = torch.zeros((3, 1, 1), dtype=torch.uint8)
        return decoding._Annotated((0, "k"), 2, pixels, Annotated(list(found)))

    whole = photograph(annotation(0, 4, 0.3), annotation(1, 4, 0.5))
    smaller = photograph(annotation(1, 2, 0.4), annotation(2, 1, 0.1))
    row = decoding._compared([smaller], {whole.name: whole})
    assert (row["masks"], row["mean_iou"], row["least_iou"]) == (3, 0.5 / 3, 0)
    assert row["score"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--input is needed"),
        (["--input", "x", "--factors", "[0]"], "--factors [0.0]: give numbers above 0"),
        (["--input", "x", "--longer", "[-1]"], "--longer [-1]: give pixels, or 0"),
        (["--input", "x", "--noise", "[2]"], "--noise [2.0]: give parts from 0 to 1"),
        (["--input", "x", "--json", "/nowhere/x.json"], "there is no such folder"),
    ],
)
def test_refusals(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert said in capsys.readouterr().err
