"""Runs that are scored: never touched, never taken for more than they are."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.demo.quality import bundled_scenes
from pipeline.errors import ConfigError
from pipeline.evaluation.predictions import Gaps, predicted_shards
from pipeline.inputs.shards import Shard
from pipeline.models.demo import ASSETS
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.rethreshold import RethresholdConfig, rethreshold

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


def test_what_a_run_lacks_is_said(
    write_predictions: Run,
    run: Run,
    flags: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictions = write_predictions([MASKS, {"0002": {}}])
    assert "INCOMPLETE" not in capsys.readouterr().out
    ledger = Ledger(predictions)
    lost = ledger.commits()[1].shard
    names = [*ledger.committed(), "never-00"]
    Path(predictions, "commits", f"{lost}.json").unlink()
    ledger.open(ledger.identity(), {}, [])  # only who drives the run gives shards up
    ledger.fail(Shard("", "s1.tar", 1), "cut short")
    ledger.summarise(names)
    found = run("points", *flags, "--predictions", predictions)
    assert found["run"]["planned"] == 3
    assert found["run"]["missing"] == {lost: "cut short", "never-00": "not done yet"}
    said = f"lacks 2 of 3 planned shards: never-00 (not done yet); {lost} (cut short)"
    text = (tmp_path / "scores" / "metrics.md").read_text()
    assert said in text and "that are in no shard" not in text and "not seen" in text
    assert said in capsys.readouterr().out


def test_a_part_of_a_shard_is_said(write_predictions: Run) -> None:
    predictions = write_predictions(MASKS)
    (path,) = Path(predictions, "commits").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"incomplete": "cut short"}))
    (note,) = Gaps.of(predictions).notes()
    assert "has only a part of 1 of 1 planned shards" in note and "cut short" in note


def scenes() -> dict[str, dict[str, np.ndarray]]:
    return {f"scene{i:05d}": scene.masks for i, scene in enumerate(bundled_scenes()[:2])}


def test_masks_of_one_image_in_two_shards_are_refused(
    write_predictions: Run, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write_predictions([scenes(), scenes()])
    run("segmentation", "--predictions", predictions, *COCO, code=2)
    assert "2 images of the ground truth are those of several samples" in capsys.readouterr().err


def test_names_that_do_not_meet_are_said(write_predictions: Run, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "truth"
    folder.mkdir()
    square = np.array([[1, 1], [2, 9]], dtype=np.uint8)
    Image.fromarray(square).save(folder / "a.png")
    Image.fromarray(np.full((2, 2), 7, dtype=np.uint8)).save(folder / "b.png")
    (tmp_path / "c.yaml").write_text("- {id: 1, name: dog}\n- {id: 2, name: gnu}\n")
    predictions = write_predictions({"a": {"dog": square == 1}, "b": {}})
    truth = ("--masks", folder, "--classes", tmp_path / "c.yaml")
    found = run("segmentation", "--predictions", predictions, *truth)
    assert found["scores"]["unpredicted"] == {"pairs": 1, "classes": ["gnu"]}
    assert found["scores"]["unnamed_ids"] == [9]
    assert found["rejected"] == {"no class, id 7 not in --classes": 1}
    text = (tmp_path / "scores" / "metrics.md").read_text()
    assert "1 of 2 pairs have no mask" in text and "gnu" in text and "background: 9." in text
    assert "{" not in text


def refused(run: Run, capsys: pytest.CaptureFixture[str], *command: object) -> str:
    run(*command, code=2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_files_that_are_something_else(
    write_predictions: Run,
    run: Run,
    csvs: tuple[str, str],
    flags: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictions = ("--predictions", write_predictions(MASKS))
    latin, other, twice = (tmp_path / name for name in ("latin.csv", "other.csv", "twice.csv"))
    latin.write_bytes("LabelName,DisplayName\n/m/d,Kr\xf6te\n".encode("latin-1"))
    other.write_text("LabelName,Name\n/m/d,Dog\n")
    twice.write_text("ImageId,X,Y,Label,EstimatedYesNo,X\na,0,0,/m/d,yes,1\n")
    names = ("--descriptions", csvs[1])
    for given, words in (
        (("--points", csvs[0], "--descriptions", latin), "--descriptions"),
        (("--points", csvs[0], "--descriptions", other), "it has LabelName, Name"),
        (("--points", csvs[0], "--descriptions", tmp_path), "is a directory"),
        (("--points", tmp_path, *names), "is a directory"),
        (("--points", twice, *names), "the column X is there twice"),
        ((*flags, "--images", tmp_path / "no.tar"), "--images"),
        ((*flags, "--method", "gradcam"), "--method: has no effect beside --predictions"),
        ((*flags, "--model.image_size", 96), "--model: has no effect beside --predictions"),
    ):
        assert words in refused(run, capsys, "points", *predictions, *given)
    error = refused(run, capsys, "segmentation", *predictions, "--coco", tmp_path)
    assert f"--coco {tmp_path}" in error
    (tmp_path / "scores").write_text("a file")
    assert "is a file" in refused(run, capsys, "points", *predictions, *flags)


def test_an_evaluation_is_no_run(
    write_predictions: Run, run: Run, flags: tuple[str, ...], tmp_path: Path
) -> None:
    run("points", *flags, "--predictions", write_predictions(MASKS))
    scores = str(tmp_path / "scores")
    with pytest.raises(ConfigError, match="counts of an evaluation"):
        predicted_shards(scores)
    with pytest.raises(ConfigError, match="counts of an evaluation"):
        rethreshold(RethresholdConfig(scores, str(tmp_path / "new")))


@pytest.mark.parametrize("content", [b"damaged", None])
def test_a_source_with_a_bad_file(
    write_predictions: Run, tmp_path: Path, content: bytes | None
) -> None:
    predictions = write_predictions(MASKS)
    (table,) = Path(predictions, "annotations").glob("*.parquet")
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(ConfigError, match=f"annotations/{table.name} cannot be read"):
        rethreshold(RethresholdConfig(predictions, str(tmp_path / "new")))


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--layers", 2), "--study sweep sets the layers itself"),
        (("--study", "ablation", "--method", "gradcam"), "takes away parts of LeGrad"),
    ],
)
def test_studies_that_would_not_listen(
    run: Run, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], words: str
) -> None:
    assert words in refused(run, capsys, "layers", "--input", "x", *flags)


def test_a_label_that_is_no_class_is_shown(
    run: Run, imagenet_shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.yaml").write_text("- {id: 7, name: dog}\n")
    flags = ("--input", imagenet_shard, "--classes", tmp_path / "one.yaml")
    error = refused(run, capsys, "perturbation", *flags)
    assert "ILSVRC2012_val_00000001, for example: .cls '0' is no class" in error
