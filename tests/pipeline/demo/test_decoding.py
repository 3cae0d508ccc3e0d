"""What decoding at a scale changes in masks, on enlarged scenes of the demo."""

import json
from pathlib import Path

import pytest

from pipeline.demo.decoding import main
from pipeline.models.demo import ASSETS

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
    as_they_are, same, noisy, enlarged, *_ = json.loads(file.read_text())["rows"]
    assert (as_they_are["changed"], as_they_are["masks"]) == (0, 0)  # 160 pixels
    assert (same["input"], same["mean_iou"], same["score"]) == (0, 1, 0)
    assert noisy["input"] == pytest.approx(0.4, abs=0.02) and noisy["mean_iou"] < 1
    assert enlarged["changed"] == enlarged["images"] == 3
    assert enlarged["masks"] > 3 and enlarged["mean_iou"] > 0.97
    assert 0 < enlarged["input"] < 1 and enlarged["score"] < 0.02
    assert "3 of 3 changed" in capsys.readouterr().out


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
