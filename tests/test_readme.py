"""The README's commands, in a clean clone, as someone does who has read nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MINUTES = 10
SHELL = re.compile(r"^`?((?:make demo|\.venv/bin/python jobs/)[^`#\n]*)", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The last commit, with this interpreter's packages for its own."""
    place = tmp_path / "clone"
    cloned = subprocess.run(["git", "clone", "--quiet", ROOT, place], check=False)
    if cloned.returncode:
        pytest.skip("not a git checkout")
    (place / ".venv").symlink_to(sys.prefix)
    return place


@pytest.mark.slow
def test_from_the_demo_to_a_trained_network(clone: Path) -> None:
    """Demo, report, COCO, pycocotools, student: every line is the README's."""
    readme = (clone / "README.md").read_text()
    lines = dict.fromkeys(line.strip() for line in SHELL.findall(readme))
    commands = [line for line in lines if is_of_the_demo(line)]
    assert [re.sub(r".*(jobs/\w+|make demo).*", r"\1", line) for line in commands] == [
        "make demo", "jobs/report", "jobs/export", "jobs/train_student",
    ]  # fmt: skip
    said = {line: run(["bash", "-c", no_install(line)], clone) for line in commands}
    quality = re.search(r"p-mIoU on the bundled points: (\S+)", said["make demo"])
    assert quality and float(quality[1]) > 0.6
    assert (clone / "out" / "demo" / "report.html").stat().st_size > 100_000
    (snippet,) = (block for block in PYTHON.findall(readme) if "pycocotools" in block)
    counted = f"{snippet}\nprint(len(coco.anns), len(coco.imgs), mask.shape, mask.sum())"
    last = run([sys.executable, "-c", counted], clone).splitlines()[-1]
    first = json.loads((clone / "out" / "coco" / "instances.json").read_text())["annotations"][0]
    assert last == f"554 192 (160, 160) {first['area']}"
    true, pseudo = (
        float(line.split(" | ")[-3])
        for line in (clone / "out" / "student" / "metrics.md").read_text().splitlines()[2:]
    )
    assert 0 < pseudo and 0 < true


def is_of_the_demo(line: str) -> bool:
    """Whether a command needs nothing that the reader would have to bring."""
    return line.startswith("make") or "out/demo" in line or "--short" in line


def no_install(line: str) -> str:
    """`make demo` without its set-up: the packages are there."""
    return line.replace("make", "make -o .venv/.ready")


def run(command: list[str], clone: Path) -> str:
    """What a command that ends well says."""
    environment = os.environ | {"PYTHONPATH": str(clone)}
    ended = subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, timeout=60 * MINUTES
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
