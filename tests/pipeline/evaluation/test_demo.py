"""The commands of docs/evaluation.md print what it says, of the demo's own masks."""

import re
import shlex
from pathlib import Path

import pytest

from jobs import annotate, evaluate
from pipeline.demo.sprites import CLASSES
from pipeline.evaluation.class_names import ClassNames
from pipeline.models.demo import ASSETS
from tests.pipeline.evaluation.conftest import LOCAL

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "evaluation.md").read_text().partition("\n## The demo's masks\n")[2]
COMMANDS, PRINTED = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[:2]


def test_the_class_file_has_the_demos_classes() -> None:
    found = ClassNames.load(str(ASSETS / "classes.yaml"), "labels")
    assert (found.names, found.ids) == (list(CLASSES), list(range(1, len(CLASSES) + 1)))


@pytest.mark.slow
def test_the_demos_masks_have_the_scores_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    assert annotate.main(["--output", "out/demo", *LOCAL]) == 0
    capsys.readouterr()
    for command in COMMANDS.replace("\\\n", " ").splitlines():
        assert evaluate.main([*shlex.split(command)[2:], *LOCAL]) == 0
    printed = rows(capsys.readouterr().out)
    for name, numbers in rows(PRINTED).items():
        assert printed[name] == pytest.approx(numbers, abs=0.3), name


def rows(text: str) -> dict[str, list[float]]:
    """The rows of Markdown tables: their first cell, and the numbers in the others."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {
        first: [float(number) for number in re.findall(r"\d+\.\d+", " ".join(rest))]
        for first, *rest in cells
    }
