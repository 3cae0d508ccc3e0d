"""One process and several Ray actors count the same, bit for bit; a killed count goes on."""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import annotate
from pipeline.models.demo import ASSETS
from tests.pipeline.evaluation.conftest import LOCAL

PARTS, SAMPLES = 4, 3
POINTS = ("--points", ASSETS / "points.csv", "--descriptions", ASSETS / "class-descriptions.csv")
COCO = ("--coco", ASSETS / "instances.json")
Run = Callable[..., Any]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The first scenes of the demo in four shards."""
    folder = tmp_path / "parts"
    folder.mkdir()
    with tarfile.open(ASSETS / "shards" / "demo-00000.tar") as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    size = 3 * SAMPLES  # an image has three members
    for part in range(PARTS):
        with tarfile.open(folder / f"part-{part}.tar", "w") as archive:
            for member, data in members[part * size : (part + 1) * size]:
                archive.addfile(member, io.BytesIO(data))
    return folder


def commands(parts: Path, classes: str, written: Path) -> dict[str, tuple[object, ...]]:
    """The flags of every command; `written` is where the demo's masks of `parts` are."""
    size = ("--model.image_size", 96)
    return {
        "points": ("--input", parts, *POINTS, *size, "--bootstrap", 20),
        "points written": ("--predictions", written, "--images", parts, *POINTS),
        "segmentation": ("--input", parts, *COCO, *size),
        "segmentation written": ("--predictions", written, *COCO),
        "perturbation": ("--input", parts, "--classes", classes, "--label_field", "labels"),
        "layers gradient": ("--input", parts, "--study", "gradient", *COCO),
        "layers sweep": ("--input", parts, *POINTS, *size, "--last", "[1, 6]"),
    }


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "evaluations", "actors"),
    [
        ("points", 1, 2),
        pytest.param("points written", 1, 2, marks=pytest.mark.long),
        # The others have actors that count several shards.
        pytest.param("segmentation", 1, PARTS, marks=pytest.mark.long),
        pytest.param("segmentation written", 1, 2, marks=pytest.mark.long),
        pytest.param("perturbation", 1, 2, marks=pytest.mark.long),
        pytest.param("layers gradient", 1, 2, marks=pytest.mark.long),
        pytest.param("layers sweep", 2, 2, marks=pytest.mark.long),
    ],
)
def test_equal_counts_whoever_counts(
    shared_ray: str,
    run: Run,
    parts: Path,
    classes: str,
    tmp_path: Path,
    name: str,
    evaluations: int,
    actors: int,
) -> None:
    command = name.partition(" ")[0]
    written = tmp_path / "written"
    if name.endswith("written"):
        annotating = ("--input", str(parts), "--output", str(written), *LOCAL)
        assert annotate.main(annotating) == 0
    flags = commands(parts, classes, written)[name]
    alone = run(command, *flags, output="alone")
    engine = ("--engine.executor", "ray", "--engine.workers", actors, "--engine.threads", 1)
    assert run(command, *flags, *engine, output="many") == alone
    counts = [path.relative_to(tmp_path / "alone") for path in tmp_path.glob("alone/**/counts/*")]
    assert len(counts) == evaluations * PARTS
    for path in counts:
        assert (tmp_path / "many" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()


def test_an_interrupted_count_goes_on(
    run: Run, parts: Path, classes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = commands(parts, classes, tmp_path)["segmentation"]
    whole = run("segmentation", *flags)
    commits = sorted((tmp_path / "scores" / "commits").iterdir())
    before = commits[0].read_bytes()
    for commit in commits[1:]:
        commit.unlink()
    capsys.readouterr()
    assert run("segmentation", *flags) == whole
    assert "4 shards: 1 committed" in capsys.readouterr().out
    assert commits[0].read_bytes() == before


def test_a_damaged_shard_is_missing_and_said_so(
    run: Run, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = parts / "part-1.tar"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    flags = ("--coco", ASSETS / "instances.json", "--model.image_size", 96)
    found = run("segmentation", "--input", parts, *flags, code=3)
    assert len(found["missing_shards"]) == 1
    assert "cut short" in capsys.readouterr().out
    assert annotate.main(["--status", str(tmp_path / "scores")]) == 0
    assert re.search(r"the last run: finished\n.*3 of 4", capsys.readouterr().out, re.DOTALL)
    again = run("segmentation", "--input", parts, *flags, "--allow_failed", 1)
    assert again["missing_shards"] == found["missing_shards"]
