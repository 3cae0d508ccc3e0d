"""What is counted of a checkout, on a small one."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.structure import backwards, circles, has_place, is_backwards, modules, report

HOUSE = {
    "legrad/__init__.py": "from legrad.build import build\n",
    "legrad/build.py": "import legrad.heatmap\nfrom legrad.towers import tower\n",
    "legrad/heatmap.py": "def later():\n    from .towers.tower import Tower\n",
    "legrad/towers/__init__.py": "",
    "legrad/towers/tower.py": "import torch\nfrom . import head\n",
    "legrad/towers/head.py": "from .tower import Tower\nfrom ..heatmap import scale\n",
    "pipeline/inputs/tars.py": "import jobs.annotate\n",
    "jobs/annotate.py": "import pipeline.inputs.tars as tars, legrad\n",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return build(tmp_path, HOUSE)


def build(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_import_is_known_however_it_is_written(house: Path) -> None:
    assert {name: set(module.imports) for name, module in modules(house).items()} == {
        "legrad": {"legrad.build"},
        "legrad.build": {"legrad.heatmap", "legrad.towers.tower"},
        "legrad.heatmap": {"legrad.towers.tower"},
        "legrad.towers": set(),
        "legrad.towers.tower": {"legrad.towers.head"},
        "legrad.towers.head": {"legrad.towers.tower", "legrad.heatmap"},
        "pipeline.inputs.tars": {"jobs.annotate"},
        "jobs.annotate": {"pipeline.inputs.tars", "legrad"},
    }


def test_imports_backwards_and_circles_are_found(house: Path) -> None:
    found = modules(house)
    assert backwards(found) == [
        ("legrad.heatmap", "legrad.towers.tower"),
        ("pipeline.inputs.tars", "jobs.annotate"),
    ]
    assert circles(found) == [
        ["jobs.annotate", "pipeline.inputs.tars"],
        ["legrad.heatmap", "legrad.towers.head", "legrad.towers.tower"],
    ]


@pytest.mark.parametrize(
    ("importer", "imports", "against"),
    [
        ("legrad.build", "legrad", True),
        ("legrad", "legrad.build", False),
        ("pipeline.outputs.ledger", "pipeline.run.run", True),
        ("pipeline.run.run", "pipeline.outputs.ledger", False),
        ("pipeline.evaluation.report", "pipeline.evaluation.points.stage", True),
        ("pipeline.evaluation.points.stage", "pipeline.evaluation.report", False),
        ("pipeline.evaluation.points.stage", "pipeline.evaluation.layers.stage", True),
        ("pipeline.evaluation.points.stage", "pipeline.demo.run", True),
        ("pipeline.config", "legrad", False),
        ("legrad.build", "pipeline.config", True),
        ("benchmarks.run", "benchmarks.timing", False),
        ("benchmarks.run", "docs.write_models", True),
    ],
)
def test_the_order(importer: str, imports: str, against: bool) -> None:
    assert is_backwards(importer, imports) is against


def test_a_new_room_has_no_place_yet() -> None:
    assert has_place("pipeline.inputs.tars") and has_place("benchmarks.run") and has_place("legrad")
    assert not has_place("pipeline.exports.coco") and not has_place("legrad.digits")


def test_the_report_says_the_numbers(house: Path) -> None:
    lines = [line.split("  at most ") for line in report(house).splitlines()]
    assert [line[0].split() for line in lines[1:5]] == [
        ["folders", "4"],
        ["modules", "8"],
        ["lines", "11"],
        ["backwards", "2", "against", "the", "order", "of", "packages", "and", "rooms"],
    ]
    assert lines[2][1] == "3 in a folder (legrad)"
    assert "heatmap imports legrad.towers.tower" in report(house)


def test_before_there_were_rooms_only_the_packages_had_an_order(tmp_path: Path) -> None:
    flat = build(
        tmp_path,
        {
            "legrad/heatmap.py": "import legrad.explainer, pipeline.config\n",
            "legrad/explainer.py": "",
            "pipeline/config.py": "import pipeline.running\n",
            "pipeline/running.py": "",
        },
    )
    assert "backwards     1   against the order of packages only" in report(flat)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no checkout"):
        report(tmp_path)
