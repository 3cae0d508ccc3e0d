"""Rules that the code keeps to, read off the code."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import structure
from tests.structure import ROOT, modules, parse

LINES, LINES_OF_A_COMMAND, MODULES_IN_A_FOLDER = 400, 119, 20


def test_imports_point_inwards() -> None:
    assert structure.backwards(modules()) == []
    assert [name for name in modules() if "tests" in packages(name)] == []


def test_every_module_is_in_a_room_that_has_a_place() -> None:
    assert [name for name in modules() if not structure.has_place(name)] == []


def test_there_is_no_circle_of_imports() -> None:
    assert structure.circles(modules()) == []


def packages(name: str) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    return {other.partition(".")[0] for other in imported(name)}


def imported(name: str) -> Iterator[str]:
    for node in ast.walk(parse(modules()[name].path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_one_module_knows_ray() -> None:
    assert [name for name in modules() if "ray" in packages(name)] == ["pipeline.run.ray_executor"]


def torch_names(name: str) -> Iterator[str]:
    """What a module imports or uses of torch; `F.gelu` is torch.nn.functional.gelu."""
    known: dict[str, str] = {}
    for node in ast.walk(parse(modules()[name].path)):
        if isinstance(node, ast.Import):
            known |= {a.asname: a.name for a in node.names if a.asname}
            known |= {a.name.partition(".")[0]: a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    names = [*imported(name)]
    for node in ast.walk(parse(modules()[name].path)):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in known:
            names.append(".".join([known[node.id], *parts]))
    return (full for full in names if full.partition(".")[0] == "torch")


NOT_OURS = re.compile(r"torch\.ops\.(mkl|mkldnn|onednn|quantized)\b|.*\._(?!_)")


def test_nothing_is_used_that_torch_keeps_for_itself() -> None:
    assert [
        f"{name} uses {full}"
        for name in modules()
        for full in torch_names(name)
        if NOT_OURS.match(full)
    ] == []


def test_a_module_can_be_read_in_one_sitting() -> None:
    assert [
        f"{name}: {module.lines} lines"
        for name, module in modules().items()
        if module.lines > (LINES_OF_A_COMMAND if name.startswith("jobs.") else LINES)
    ] == []


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    assert [
        f"{folder.relative_to(ROOT)}: {count} modules"
        for folder, count in structure.in_folders(modules()).items()
        if count > MODULES_IN_A_FOLDER
    ] == []


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


FLAGS = (("(?:extra-)?index", "url"), ("find", "links"), ("trusted", "host"))
FORBIDDEN = {  # in pieces, so that this file has none of it either
    "a path of one machine": re.compile(r"/(?:home|Users|work)/[a-z]|/ro" r"ot/"),
    "the address of a package index": re.compile(
        "|".join(
            (
                *(rf"--{option}-{url}" for option, url in FLAGS),
                r"files\.python" r"hosted",
                r"/sim" r"ple/?[\s\"']",
            )
        )
    ),
}


@pytest.mark.parametrize("pattern", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_no_tracked_file_has(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        if not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.long  # the commands of the README, which one process runs, show it too
def test_a_run_without_ray_does_not_load_it() -> None:
    program = """
import sys
import pipeline.run.worker, pipeline.run.local_executor
print("ray" in sys.modules)
"""
    python = [sys.executable, "-c", program]
    ended = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
