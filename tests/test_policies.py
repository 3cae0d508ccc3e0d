"""Rules that the code keeps to, read off the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("legrad", "pipeline", "jobs", "benchmarks")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LIMIT = 400  # lines


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_imports_point_inwards(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    outer = PACKAGES[PACKAGES.index(package) + 1 :]
    assert not imported(path) & {*outer, "docs", "tests"}


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_one_module_knows_ray(path: Path) -> None:
    if module_id(path) != "pipeline/run/ray_executor.py":
        assert "ray" not in imported(path)


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LIMIT


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


FORBIDDEN = {
    "a path of one machine": re.compile(r"/(?:home|Users|work)/[a-z]|/root/"),
    "the address of a package index": re.compile(
        r"--(?:extra-)?index-url|--find-links|--trusted-host|files\.pythonhosted|/simple/?[\s\"']"
    ),
}


@pytest.mark.parametrize("pattern", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_no_tracked_file_has(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{module_id(path)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_local_executor_does_not_load_ray() -> None:
    program = (
        "import sys, pipeline.run.worker, pipeline.run.local_executor; print('ray' in sys.modules)"
    )
    python = [sys.executable, "-c", program]
    ended = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
