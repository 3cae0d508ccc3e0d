"""The time of a shard, by stage; a clock that is told what to show stands for the real ones."""

import itertools
import time
from pathlib import Path

import pytest

from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import STAGES, StageClock
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Counts, make_commit


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the wall is a second after the one before; a core is had for half of it."""
    wall, core = itertools.count(), itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(wall)))
    monkeypatch.setattr(time, "thread_time", lambda: next(core) / 2)


@pytest.mark.usefixtures("ticking")
def test_a_stage_adds_up_also_where_it_fails() -> None:
    clock = StageClock()
    with clock.measure("model"):
        pass
    with pytest.raises(KeyError), clock.measure("model"):
        raise KeyError
    nothing = dict.fromkeys(STAGES, 0.0)
    assert clock.record() == {
        "stages": nothing | {"model": 2.0},
        "processor": nothing | {"model": 1.0},
    }


@pytest.mark.usefixtures("ticking")
def test_what_is_done_with_an_item_is_not_the_time_to_get_it() -> None:
    clock = StageClock()
    for _ in clock.waiting("read", "ab"):
        time.monotonic()
    assert clock.seconds["read"] == 3.0  # two items, and that there is no third


@pytest.mark.usefixtures("ticking")
def test_the_seconds_of_a_commit_hold_all_that_its_stages_do(tmp_path: Path) -> None:
    ledger, clock = Ledger(str(tmp_path)), StageClock()
    ledger.open({"schema_version": 2}, {}, [])
    counts = Counts(samples=0, statuses={}, rejects={}, prompts=0, prompts_cut=0, masks=0)
    shard, files = Shard("", "a.tar", 1), {"counts/a.parquet": b"table"}
    commit = make_commit(shard, ledger.fingerprint, counts, files, seconds=0.0, attempt=1)
    ledger.commit(commit, files, clock)
    (written,) = ledger.commits()
    assert written.seconds >= written.stages["write"] >= 1


def test_a_commit_says_what_the_clock_does_and_none_without_one(tmp_path: Path) -> None:
    ledger, clock = Ledger(str(tmp_path)), StageClock()
    ledger.open({"schema_version": 2}, {}, [])
    clock.seconds["decode"], clock.processor["decode"] = 1.25, 0.5
    counts = Counts(samples=0, statuses={}, rejects={}, prompts=0, prompts_cut=0, masks=0)
    for name, told in (("a", clock), ("b", None)):
        files = {f"counts/{name}.parquet": b"table"}
        shard = Shard("", f"{name}.tar", 1)
        commit = make_commit(shard, ledger.fingerprint, counts, files, seconds=1.0, attempt=1)
        ledger.commit(commit, files, told)
    first, second = ledger.commits()
    assert first.stages["decode"] == 1.25 and first.processor["decode"] == 0.5
    assert [*first.stages] == [*first.processor] == [*STAGES] and first.stages["write"] >= 0
    assert second.stages == second.processor == {}
