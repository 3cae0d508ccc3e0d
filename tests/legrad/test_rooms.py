"""The order of what is in `legrad`, read off its imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import legrad

HOUSE = Path(legrad.__file__).parent
ORDER = (
    "errors", "options", "heatmap", "towers", "explainer", "correction", "engines", "baselines",
    "build", "__init__",
)  # fmt: skip
MODULES = sorted(HOUSE.rglob("*.py"))


def room(path: Path) -> str:
    """The module or folder right below `legrad` that a file belongs to."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("legrad."))


def test_every_room_has_a_place() -> None:
    assert {room(path) for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_only_what_stands_before_it(path: Path) -> None:
    own = ORDER.index(room(path))
    assert [name for name in imported_rooms(path) if ORDER.index(name) > own] == []
