"""The README's commands, in a clean clone, as someone does who has read nothing else.

And those of docs/evaluation.md, of what `make demo` has left there.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from jobs import evaluate
from tests.pipeline.evaluation.conftest import LOCAL

ROOT = Path(__file__).parents[1]
MINUTES = 10
SHELL = re.compile(r"^`?((?:make demo|\.venv/bin/python jobs/)[^`#\n]*)", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCORES = (ROOT / "docs" / "evaluation.md").read_text().partition("\n## The demo's masks\n")[2]
SCORING, PRINTED = re.findall(r"^```\n(.*?)^```", SCORES, re.MULTILINE | re.DOTALL)[:2]

TOGETHER = """
import json, runpy, shlex, sys

lines, snippet, first = json.loads(sys.argv[1])
exec(first)
for line in lines:
    _, *sys.argv = shlex.split(line)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, line
assert "ray" not in sys.modules, "it takes a second, and none of them runs on it"
exec(snippet)
print(len(coco.anns), len(coco.imgs), mask.shape, mask.sum())
"""
"""Commands in one process, which loads torch once for all of them, and then the snippet."""
FEW_STEPS = """
from dataclasses import replace
from pipeline.student.study import StudentConfig

least = dict(scenes=16, choose=4, held_out=4, steps=3, seeds=[0], rules=["default"], presets=[])
StudentConfig.shortened = lambda self: replace(self, **least)
"""


@dataclass(frozen=True)
class Clone:
    """Where it is, the README's commands that need nothing else, and what the first one said."""

    place: Path
    commands: list[str]
    said: str

    @property
    def readme(self) -> str:
        return (self.place / "README.md").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The last commit, with this interpreter's packages for its own, after `make demo`."""
    place = tmp_path_factory.mktemp("stranger") / "clone"
    cloned = subprocess.run(["git", "clone", "--quiet", ROOT, place], check=False)
    if cloned.returncode:
        pytest.skip("not a git checkout")
    (place / ".venv").symlink_to(sys.prefix)
    lines = (line.strip() for line in SHELL.findall((place / "README.md").read_text()))
    commands = list(dict.fromkeys(line for line in lines if is_of_the_demo(line)))
    assert commands[0] == "make demo"
    # Without its set-up: the packages are there.
    said = run(["bash", "-c", "make -o .venv/.ready demo"], place)
    return Clone(place, commands, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(FEW_STEPS, id="in few steps"),
        pytest.param("", id="as it is written", marks=pytest.mark.long),
    ],
)
def test_from_the_demo_to_a_trained_network(clone: Clone, first: str) -> None:
    """Demo, report, COCO, pycocotools, student: every line is the README's."""
    assert [re.sub(r".*(jobs/\w+|make demo).*", r"\1", line) for line in clone.commands] == [
        "make demo", "jobs/report", "jobs/export", "jobs/train_student",
    ]  # fmt: skip
    quality, control = (
        float(re.search(pattern, clone.said)[1])
        for pattern in (r"p-mIoU on the bundled points: (\S+)", r"cover everything: (\S+)")
    )
    assert quality >= 0.60 > 0.30 > control > 0.20
    assert "Look at out/demo/preview.png and out/demo/report.html" in clone.said
    assert "No pictures" not in clone.said
    demo = clone.place / "out" / "demo"
    with Image.open(demo / "preview.png") as sheet:
        assert sheet.width > 1000 < sheet.height
    (demo / "report.html").unlink()
    (snippet,) = (block for block in PYTHON.findall(clone.readme) if "pycocotools" in block)
    given = json.dumps([clone.commands[1:], snippet, first])
    last = run([sys.executable, "-c", TOGETHER, given], clone.place).splitlines()[-1]
    page = (demo / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3 * (3 * 6 + 12 * 2)
    assert "<dt>images in committed shards</dt><dd>192</dd>" in page
    summary = json.loads((demo / "summary.json").read_text())
    assert (summary["shards"], summary["samples"], summary["missing"]) == (3, 192, [])
    out = clone.place / "out"
    one, *_ = json.loads((out / "coco" / "instances.json").read_text())["annotations"]
    assert last == f"554 192 (160, 160) {one['area']}"
    true, pseudo = (
        float(line.split(" | ")[-3])
        for line in (out / "student" / "metrics.md").read_text().splitlines()[2:]
    )
    assert 0 < pseudo and 0 < true


def scored() -> Iterator[object]:
    """Each command of docs/evaluation.md, and the table that stands there for it."""
    lines = SCORING.replace("\\\n", " ").splitlines()
    for line, table in zip(lines, PRINTED.split("\n\n"), strict=True):
        metric = shlex.split(line)[2]
        marks = [pytest.mark.long] if metric == "perturbation" else []
        yield pytest.param(line, table, id=metric, marks=marks)


@pytest.mark.parametrize(("command", "table"), [*scored()])
def test_the_demos_masks_have_the_scores_of_the_page(
    clone: Clone,
    command: str,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(clone.place)
    assert evaluate.main([*shlex.split(command)[2:], *LOCAL]) == 0
    printed, expected = rows(capsys.readouterr().out), rows(table)
    assert sum(map(len, expected.values())) > 1
    for name, numbers in expected.items():
        assert printed[name] == pytest.approx(numbers, abs=0.3), name


def rows(text: str) -> dict[str, list[float]]:
    """The rows of Markdown tables: their first cell, and the numbers in the others."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {
        first: [float(number) for number in re.findall(r"\d+\.\d+", " ".join(rest))]
        for first, *rest in cells
    }


def is_of_the_demo(line: str) -> bool:
    """Whether a command needs nothing that the reader would have to bring."""
    return line.startswith("make") or "out/demo" in line or "--short" in line


def run(command: list[str], place: Path) -> str:
    """What a command that ends well says."""
    environment = os.environ | {"PYTHONPATH": str(place)}
    ended = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=60 * MINUTES
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
