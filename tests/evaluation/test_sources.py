"""Runs that are scored: never touched, never taken for more than they are."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.demo.model import ASSETS

Run = Callable[..., Any]
MASKS = {"0001": {"dog": np.ones((4, 4), dtype=bool)}}
COCO = ("--coco", ASSETS / "instances.json")


@pytest.fixture
def flags(csvs: tuple[str, str]) -> tuple[str, ...]:
    """What the points stage needs besides predictions."""
    return ("--points", csvs[0], "--descriptions", csvs[1], "--bootstrap", "0")


def contents(folder: str) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_the_run_that_is_scored_is_never_the_output(
    write_predictions: Run, run: Run, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write_predictions(MASKS, name="scores")
    before = contents(predictions)
    again = f"{predictions}/../scores/"
    for stage in (("points", *flags), ("segmentation", *COCO)):
        run(*stage, "--predictions", again, "--on_mismatch", "redo", code=2)
        assert "is --predictions itself; name another place" in capsys.readouterr().err
    assert contents(predictions) == before


@pytest.mark.parametrize("record", ["run.json", ""])
def test_no_evaluation_deletes_an_annotation_run(
    write_predictions: Run,
    run: Run,
    flags: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    record: str,
) -> None:
    predictions = write_predictions(MASKS)
    other = write_predictions(MASKS, name="scores")
    if not record:
        Path(other, "run.json").unlink()
    before = contents(other)
    run("points", *flags, "--predictions", predictions, "--on_mismatch", "redo", code=2)
    error = capsys.readouterr().err
    assert "holds an annotation run" in error and error.count("\n") == 1
    assert contents(other) == before
