"""A handful of the faults once each, and how the suite keeps its records; `make chaos` does all."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import suite, table
from tests.chaos.cases import Bench, Case
from tests.chaos.drives import Hangs, until
from tests.chaos.kinds import KINDS, Kind, Skipped
from tests.chaos.suite import USUAL, Record

FEW = (
    "redo with other settings beside a driver at work",
    "committed table cut",
    "driver killed with kill -9, local",
    "SIGTERM to the driver, local",
    "HTTP: 30 % of the bodies cut, server without ranges",
    "disk too small, then enlarged",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("chaos")) as bench:
        yield bench


@pytest.mark.parametrize("name", FEW)
def test_after_a_fault_the_same_command_gives_the_same_bytes(bench: Bench, name: str) -> None:
    record = suite.do(KINDS[name], 0, 1, bench)
    if record.outcome == "skipped":
        pytest.skip(record.error)
    assert record.outcome == "well", record.error


def test_a_full_run_has_as_many_faults_as_were_promised() -> None:
    due = list(suite.due(KINDS.values(), USUAL, 1, []))
    assert len(due) >= 240 and len(KINDS) >= 24
    assert sum(kind.name == FEW[0] for kind, _ in due) == 50
    assert {kind.row for kind in KINDS.values()} >= {str(row) for row in range(1, 12)}


def test_what_is_recorded_is_not_done_again(tmp_path: Path) -> None:
    kinds = list(KINDS.values())[1:3]
    results = tmp_path / "results.jsonl"
    assert len(list(suite.due(kinds, 8, 1, suite.read(results)))) == 16
    suite.append(results, Record(kinds[0].name, 3, 1, "well", 1.0))
    with results.open("a") as file:
        file.write('{"kind": "cut')  # by a kill
    suite.append(results, Record(kinds[1].name, 0, 1, "failed", 1.0, error="it differs"))
    records = suite.read(results)
    assert [record.number for record in records] == [3, 0]
    left = [(kind.name, number) for kind, number in suite.due(kinds, 8, 1, records)]
    assert len(left) == 14 and (kinds[0].name, 3) not in left
    assert len(list(suite.due(kinds, 8, 2, records))) == 16  # another seed


@pytest.mark.parametrize(
    ("happens", "outcome", "error"),
    [
        (lambda case: case.check(), "failed", ""),
        (lambda case: None, "failed", "silent"),
        (lambda case: (_ for _ in ()).throw(Skipped("not here")), "skipped", "not here"),
        (lambda case: until(lambda: False, 0.01, "the impossible"), "failed", "the impossible"),
    ],
)
def test_a_fault_that_does_not_end_well_is_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, happens: object, outcome: str, error: str
) -> None:
    kind = Kind("a test", happens)
    monkeypatch.setitem(KINDS, kind.name, kind)
    record = suite.do(kind, 0, 1, bench)
    assert record.outcome == outcome and error in record.error


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Case:
    """A run that nothing happened to."""
    case = Case("a check", random.Random(0), bench.folder / "whole", bench)
    case.goes_on()
    case.check()
    return case


@pytest.mark.parametrize("spoil", ["differs", "lost", "twice", "given up"])
def test_the_check_finds_what_is_not_as_it_should_be(
    whole: Case, tmp_path: Path, spoil: str
) -> None:
    case = copy.copy(whole)
    case.output = tmp_path / "out"
    shutil.copytree(whole.output, case.output)
    case.check()
    first, second = sorted((case.output / "annotations").iterdir())[:2]
    if spoil == "differs":
        first.write_bytes(second.read_bytes())
    elif spoil == "lost":
        next((case.output / "images").iterdir()).unlink()
    elif spoil == "twice":
        (case.output / "images" / "again.parquet").write_bytes(
            next((case.output / "images").iterdir()).read_bytes()
        )
    else:
        (case.output / "failed").mkdir()
        (case.output / "failed" / "s000-0.json").write_text(json.dumps({"reason": "none"}))
    with pytest.raises(AssertionError):
        case.check()


def test_what_does_not_happen_in_its_time_hangs() -> None:
    with pytest.raises(Hangs, match="not yet: nothing"):
        until(lambda: False, 0.01, "nothing")


def test_the_table_counts_runs_and_what_ended_well(tmp_path: Path) -> None:
    name, other, *_ = KINDS
    records = [
        Record(name, 0, 1, "well", 3.0, recovery=1.0),
        Record(name, 1, 1, "well", 3.0, recovery=4.0),
        Record(name, 2, 1, "failed", 3.0, error="it differs"),
        Record(other, 0, 1, "skipped", 0.0, error="not here"),
    ]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(records, page)
    lines = page.read_text().splitlines()
    assert f"| {name} | 3 | 2 | 2.5 s |" in lines and f"| {other} | 0 | 0 |  |" in lines
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has not the lines"):
        table.write(records, page)
