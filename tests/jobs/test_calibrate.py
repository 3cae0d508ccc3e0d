"""From a run over labelled images to levels, and from these to a run with probabilities."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.annotate import main as annotate
from jobs.calibrate import main as calibrate
from jobs.export import main as export
from jobs.rethreshold import main as rethreshold
from pipeline.inputs.classes import load_classes
from pipeline.models.demo import ASSETS

LOCAL = ("--engine.executor", "local", "--engine.threads", "1", "--engine.log_seconds", "1000")
SHARDS = str(ASSETS / "shards")
CLASSES = str(ASSETS / "classes.yaml")
ALL = ("--prompts.source", "vocabulary", "--prompts.top_k", "48")
TRUTHS = {
    "coco": ("--coco", str(ASSETS / "instances.json")),
    "points": (
        *("--points", str(ASSETS / "points.csv")),
        *("--descriptions", str(ASSETS / "class-descriptions.csv")),
    ),
    "input": ("--input", SHARDS),
}
EASY = ("--precision", "0.9", "--folds", "3")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A part of the demo with the scores of all classes, and masks where they are not low."""
    output = str(tmp_path_factory.mktemp("scored") / "out")
    flags = ("--limit_samples", "20", "--prompts.classes", CLASSES, "--prompts.presence", "0.3")
    assert annotate([*LOCAL, "--input", SHARDS, *ALL, *flags, "--output", output]) == 0
    return output


def made(scored: str, output: Path, truth: str, *flags: str) -> dict[str, Any]:
    own = ("--predictions", scored, "--output", str(output), "--classes", CLASSES)
    assert calibrate([*own, *TRUTHS[truth], *EASY, *flags]) == 0
    numbers: dict[str, Any] = json.loads((output / "calibration.json").read_text())
    return numbers


def test_every_truth_says_the_same_of_presence(
    scored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {truth: made(scored, tmp_path / truth, truth) for truth in TRUTHS}
    said = capsys.readouterr().out
    assert said.count("is no fair number") == 3
    assert "no thresholds: the truth does not say where things are" in said
    assert "by p-mIoU, which is not that of mask mIoU" in said
    for numbers in found.values():
        assert numbers["presence"] == found["input"]["presence"]
        assert numbers["probability"] == found["input"]["probability"]
        assert numbers["sample"] == found["input"]["sample"]
    judged = found["coco"]["cross_validated"]
    assert judged["precision"] > 0.9 and judged["recall"] > 0.9
    assert judged["calibration_error"] < 0.02
    assert 0.35 <= found["coco"]["threshold"] <= 0.6
    assert found["points"]["threshold"] <= found["coco"]["threshold"]
    assert found["input"]["threshold"] is None
    pages = {path.name for path in (tmp_path / "coco").iterdir()}
    assert pages == {
        *("classes.yaml", "calibration.json", "calibration.md"),
        *("presence.png", "reliability.png", "thresholds.png"),
    }
    page = (tmp_path / "coco" / "calibration.md").read_text()
    assert "![thresholds](thresholds.png)" in page and "| zebra" not in page
    assert "| robot |" in page


def test_a_run_with_what_was_found(scored: str, tmp_path: Path) -> None:
    numbers = made(scored, tmp_path / "found", "input")
    classes, file = (str(tmp_path / "found" / n) for n in ("classes.yaml", "calibration.json"))
    before, after = load_classes(CLASSES), load_classes(classes)
    assert [(c.id, c.name, c.prompts) for c in after] == [(c.id, c.name, c.prompts) for c in before]
    assert all(
        category.presence == numbers["classes"][category.name]["presence"] for category in after
    )
    flags = (*ALL, "--prompts.classes", classes, "--prompts.calibration", file)
    one = ("--input", f"{SHARDS}/demo-00000.tar", "--limit_samples", "8")
    output = tmp_path / "out"
    assert annotate([*LOCAL, *one, *flags, "--output", str(output)]) == 0
    table = pq.read_table(output / "annotations")
    assert table.column_names.index("probability") == table.column_names.index("score") + 1
    level = {category.name: category.presence for category in after}
    rows = table.to_pylist()
    assert rows and all(row["score"] > level[row["category"]] for row in rows)
    curve = numbers["probability"]
    for row in rows:
        odds = 2.718281828459045 ** (curve["slope"] * row["score"] + curve["intercept"])
        assert row["probability"] == pytest.approx(odds / (1 + odds), abs=1e-5)
    again = tmp_path / "again"
    arguments = ["--source", str(output), "--output", str(again), "--mask.threshold", "0.4"]
    assert rethreshold(arguments) == 0
    assert pq.read_table(again / "annotations")["probability"].to_pylist() == [
        row["probability"] for row in rows
    ]
    assert pq.read_table(again / "images").column("absent").to_pylist() == (
        pq.read_table(output / "images").column("absent").to_pylist()
    )
    least = sorted(row["probability"] for row in rows)[1]
    select = ("--select.probability", str(least), "--output", str(tmp_path / "coco"))
    assert export(["coco", "--predictions", str(output), *select]) == 0
    objects = json.loads((tmp_path / "coco" / "instances.json").read_text())["annotations"]
    assert len(objects) == sum(row["probability"] >= least for row in rows) < len(rows)


def test_points_give_no_thresholds_to_maps_that_compete(
    scored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    winner = str(tmp_path / "winner")
    arguments = ("--source", scored, "--output", winner, "--mask.overlap", "winner")
    assert rethreshold([*arguments]) == 0
    capsys.readouterr()
    numbers = made(winner, tmp_path / "points", "points")
    said = capsys.readouterr().out
    assert "no thresholds: the run was made with --mask.overlap winner, and points" in said
    assert numbers["threshold"] is None
    assert {entry["threshold"] for entry in numbers["classes"].values()} == {None}
    assert made(winner, tmp_path / "coco", "coco")["threshold"] is not None


def test_refusals(scored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str, command=calibrate) -> str:
        assert command([*arguments, "--output", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    run = ("--predictions", scored)
    assert "give one of --coco, --masks, --points" in said(*run)
    assert "give one of" in said(*run, *TRUTHS["coco"], *TRUTHS["input"])
    assert "was made with a class file" in said(*run, *TRUTHS["coco"])
    (tmp_path / "other.yaml").write_text("- {id: 1, name: dog}")
    other = ("--classes", str(tmp_path / "other.yaml"))
    assert "is not the class file that" in said(*run, *TRUTHS["coco"], *other)
    own = ("--classes", CLASSES)
    assert "--folds 61: only 60 images" in said(*run, *TRUTHS["coco"], *own, "--folds", "61")
    (tmp_path / "out").mkdir()
    given = tmp_path / "out" / "classes.yaml"
    given.write_bytes((ASSETS / "classes.yaml").read_bytes())
    assert "would take the place of --classes" in said(
        *("--predictions", str(tmp_path / "not read")), *TRUTHS["coco"], "--classes", str(given)
    )
    assert given.read_bytes() == (ASSETS / "classes.yaml").read_bytes()
    given.unlink()
    strict = ("--precision", "0.999", "--confidence", "0.99")
    assert "--precision 0.999: no level keeps it" in said(*run, *TRUTHS["coco"], *own, *strict)
    select = ("coco", *run, "--select.probability", "0.5")
    assert "the run has no probabilities" in said(*select, command=export)
    plain = ("--prompts.classes", str(tmp_path / "other.yaml"))
    silent = (*LOCAL, "--prompts.source", "vocabulary", *plain)
    assert "needs --prompts.presence" in said(*silent, command=annotate)
    templates = ("--prompts.templates", '["the {}"]')
    calibration = ("--prompts.calibration", str(ASSETS / "calibration.json"))
    refused = said(*LOCAL, *templates, *calibration, command=annotate)
    assert "was made for another templates" in refused
    missing = ("--prompts.calibration", str(tmp_path / "none.json"))
    assert "none.json" in said(*LOCAL, *missing, command=annotate)
