"""What pages say of the tree is so."""

import re
from pathlib import Path

import pytest

from benchmarks.run import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
PATH = re.compile(r"`((?:legrad|pipeline|jobs|benchmarks|tests|docs)/[\w./*]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = PATH.findall(page.read_text())
    assert [name for name in named if not list(ROOT.glob(name))] == []


def test_functions_and_classes_of_the_architecture_page_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    source = "\n".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    known = set(re.findall(r"(?:def|class) (\w+)", source))
    camel = re.findall(r"`([A-Z]\w+[a-z]\w*)(?:\.(\w+))?`", page)
    snake = re.findall(r"`([a-z]+_[a-z_]+)`", page)
    names = {name for pair in camel for name in pair if name} | set(snake)
    assert names - known - {"batch_size", "max_attempts", "closed_form"} == set()


def test_every_benchmark_is_on_a_page() -> None:
    """One whose figures nobody shows is not needed; `published` installs what another compares."""
    shown = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"benchmarks/run\.py (\w+)", shown))
    assert COMMANDS.keys() - {"published"} == named - {"published"}
