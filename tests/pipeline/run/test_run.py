"""A run from plan to summary, with workers that only commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import ModelError
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import TABLES, Ledger
from pipeline.outputs.records import Counts, make_commit
from pipeline.run import run as driver
from pipeline.run.annotation import print_status
from pipeline.run.queue import Outcome, ShardQueue
from pipeline.run.run import run_shards
from pipeline.run.worker import Worker

SHARDS = [Shard(f"/in/{name}.tar", f"/in/{name}.tar", 10) for name in "ab"]
COUNTS = Counts(samples=2, statuses={}, rejects={}, prompts=0, prompts_cut=0, masks=0)
MakeConfig = Callable[..., AnnotateConfig]
Execute = Callable[[BaseException | None], None]


def saved(ledger: Ledger) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(Path(ledger.output, "summary.json").read_text())
    return summary


def files_of(shard: Shard, ledger: Ledger) -> list[Path]:
    """All that was written for a shard, in every folder of the output."""
    return sorted(Path(ledger.output).glob(f"*/{shard.name}.*"))


@pytest.fixture
def ledger(make_config: MakeConfig) -> Ledger:
    config = make_config()
    ledger = Ledger(config.output)
    ledger.open(config.identity(), {}, [])
    return ledger


@pytest.fixture
def execute(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """`execute(error)`: from now on every shard is committed, or `error` raised after the first.

    Nothing may be left of a shard by the time that it is done.
    """

    def prepare(error: BaseException | None) -> None:
        class CommitsAll:
            """An executor."""

            def run(self, queue: ShardQueue) -> None:
                assert saved(ledger)["state"] == "running"
                while trial := queue.next(idle=True):
                    shard = trial.shard
                    assert files_of(shard, ledger) == []
                    made = AnnotateConfig().fingerprint()
                    commit = make_commit(shard, made, COUNTS, {}, seconds=0.5, attempt=1)
                    ledger.commit(commit, {f"{t}/{shard.name}.parquet": b"table" for t in TABLES})
                    if error:
                        raise error
                    queue.end(trial, Outcome())

            def close(self) -> None:
                assert saved(ledger)["state"] == "running"

        monkeypatch.setattr(driver, "make_executor", lambda *_: CommitsAll())

    return prepare


def test_a_run_that_ends_is_finished(
    ledger: Ledger, make_config: MakeConfig, execute: Execute
) -> None:
    execute(None)
    summary = run_shards(make_config(), ledger, SHARDS, Worker)
    assert (summary.state, summary.shards, summary.samples) == ("finished", 2, 4)
    assert saved(ledger)["state"] == "finished"


def test_a_run_that_the_storage_ends_has_not_finished(
    ledger: Ledger,
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Away:
        """An executor of which the storage is away for the whole of a run's patience."""

        def run(self, queue: ShardQueue) -> None:
            now = [0.0]
            queue.clock = lambda: now[0]
            while not queue.is_over:
                now[0] += 10.0
                if trial := queue.next(idle=True):
                    queue.end(trial, Outcome("503", transient=True))

        def close(self) -> None:
            pass

    monkeypatch.setattr(driver, "make_executor", lambda *_: Away())
    shards = [Shard(f"/in/{name}.tar", f"/in/{name}.tar", 10) for name in "abcdefgh"]
    summary = run_shards(make_config(), ledger, shards, Worker)
    assert summary.state == "stopped" and len(summary.missing) == len(shards)
    capsys.readouterr()
    print_status(ledger.output)
    said = capsys.readouterr().out
    assert "the last run: stopped" in said and "0 of 8" in said
    assert "no record says why" not in said, "those that were not reached have not failed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ModelError("no weights")])
def test_a_run_that_is_stopped_says_how_far_it_came(
    ledger: Ledger, make_config: MakeConfig, execute: Execute, error: BaseException
) -> None:
    execute(error)
    with pytest.raises(type(error)):
        run_shards(make_config(), ledger, SHARDS, Worker)
    assert (saved(ledger)["state"], saved(ledger)["missing"]) == ("stopped", [SHARDS[1].name])


def test_a_shard_that_has_changed_is_done_again(
    ledger: Ledger, make_config: MakeConfig, execute: Execute
) -> None:
    execute(None)
    run_shards(make_config(), ledger, SHARDS, Worker)
    longer = [replace(SHARDS[0], size=11), SHARDS[1]]
    assert len(files_of(SHARDS[0], ledger)) == 1 + len(TABLES)
    run_shards(make_config(), ledger, longer, Worker)
    assert [commit.bytes for commit in ledger.commits()] == [11, 10]
