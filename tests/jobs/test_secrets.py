"""Whoever reads a log or an output does not learn how its inputs were reached."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from jobs import annotate, evaluate, export, report, rethreshold
from pipeline.models.demo import ASSETS
from tests.faulty import FileServer

SECRET = "hush"
Main = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """`served(name)`: where a file is, with a password and a signature; good ones and bad ones."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("points.csv", "class-descriptions.csv", "instances.json", "classes.yaml"):
        shutil.copy(ASSETS / name, folder)
    shard = (ASSETS / "shards" / "demo-00000.tar").read_bytes()
    (folder / "good.tar").write_bytes(shard)
    (folder / "cut.tar").write_bytes(shard[:30_000])
    for name in ("bad.yaml", "bad.csv", "bad.json", "bad.pt"):
        (folder / name).write_text("- {")
    with FileServer(folder) as server:
        place = server.address.removeprefix("http://")
        yield lambda name: f"http://user:{SECRET}@{place}/{name}?signature={SECRET}"


@pytest.fixture(scope="module")
def annotated(served: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a shard that is done and one that failed."""
    output = tmp_path_factory.mktemp("annotated") / "out"
    inputs = f"['{served('good.tar')}', '{served('cut.tar')}']"
    arguments = ["--input", inputs, "--output", str(output), "--engine.executor", "local"]
    classes = ["--prompts.classes", served("classes.yaml"), "--limit_samples", "30"]
    assert annotate.main([*arguments, *classes, "--engine.max_attempts", "1"]) == 3
    return output


COMMANDS: dict[str, tuple[Main, Sequence[str], int]] = {
    "dry run": (annotate.main, ["--input", "@good.tar", "--dry_run"], 0),
    "no shard": (annotate.main, ["--input", "@none.tar"], 2),
    "bad classes": (
        *(annotate.main, ["--input", "@good.tar", "--prompts.classes", "@bad.yaml"]),
        2,
    ),
    "bad weights": (
        annotate.main,
        ["--input", "@good.tar", "--model.name", "ViT-B-32", "--model.pretrained", "@bad.pt"],
        2,
    ),
    "no weights": (
        annotate.main,
        ["--input", "@good.tar", "--model.name", "ViT-B-32", "--model.pretrained", "@none.pt"],
        2,
    ),
    "no settings": (annotate.main, ["--input", "@good.tar", "--config", "@bad.yaml"], 2),
    "bad points": (
        evaluate.main,
        ["points", "--predictions", "+", "--points", "@bad.csv", "--descriptions", "@bad.csv"],
        2,
    ),
    "points": (
        evaluate.main,
        [
            "points",
            "--predictions",
            "+",
            "--points",
            "@points.csv",
            "--descriptions",
            "@class-descriptions.csv",
        ],
        0,
    ),
    "bad truth": (evaluate.main, ["segmentation", "--predictions", "+", "--coco", "@bad.json"], 2),
    "no run": (evaluate.main, ["segmentation", "--predictions", "@x", "--coco", "@bad.json"], 2),
    "other images": (
        *(export.main, ["webdataset", "--predictions", "+", "--images", "@cut.tar"]),
        2,
    ),
    "report": (report.main, ["--predictions", "+", "--images", "@good.tar"], 0),
    "thresholds": (rethreshold.main, ["--source", "+", "--classes", "@bad.yaml"], 2),
    "source": (rethreshold.main, ["--source", "@x"], 2),
}
"""Command, its arguments (@ for a served file, + for the run) and its exit code."""


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_is_printed_or_written_has_a_secret(
    name: str,
    served: Callable[[str], str],
    annotated: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    main, given, code = COMMANDS[name]
    arguments = [
        served(text[1:]) if text.startswith("@") else str(annotated) if text == "+" else text
        for text in given
    ]
    if main in (annotate.main, evaluate.main):
        arguments += ["--engine.executor", "local"]
    try:
        ended = main([*arguments, "--output", str(tmp_path / "out")])
    except SystemExit as error:  # of the parser
        ended = int(str(error.code))
    said = capfd.readouterr()
    assert ended == code, said
    assert SECRET not in said.out + said.err
    for folder in (annotated, tmp_path):
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
