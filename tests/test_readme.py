"""The README's commands, in a clean clone, as someone does who has read nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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
    quality, control = (
        float(re.search(pattern, said["make demo"])[1])
        for pattern in (r"p-mIoU on the bundled points: (\S+)", r"cover everything: (\S+)")
    )
    assert quality >= 0.60 > 0.30 > control > 0.20
    assert "Look at out/demo/preview.png and out/demo/report.html" in said["make demo"]
    assert "No pictures" not in said["make demo"]
    demo = clone / "out" / "demo"
    with Image.open(demo / "preview.png") as sheet:
        assert sheet.width > 1000 < sheet.height
    page = (demo / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3 * (3 * 6 + 12 * 2)
    assert "<dt>images in committed shards</dt><dd>192</dd>" in page
    summary = json.loads((demo / "summary.json").read_text())
    assert (summary["shards"], summary["samples"], summary["missing"]) == (3, 192, [])
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
