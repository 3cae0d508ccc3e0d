"""Which shards are tried, how often, and what is written about those that are given up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit
from pipeline.run.passes import WORKER_DIED, run_passes
from pipeline.run.plan import plan
from pipeline.run.worker import Outcome

SHARDS = [Shard(f"/in/{name}.tar", f"/in/{name}.tar", 10) for name in ("a", "b", "c")]
A, B, C = SHARDS


class Executor:
    """Commits every shard, but what it is told to do with some of them."""

    def __init__(self, ledger: Ledger, **faults: str) -> None:
        self.ledger, self.faults = ledger, faults
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, shards: Sequence[Shard], attempt: int, in_flight: int) -> list[Outcome]:
        self.calls.append(("".join(s.uri[4] for s in shards), attempt, in_flight))
        outcomes = [self._try(shard, attempt) for shard in shards]
        return [outcome for outcome in outcomes if outcome]

    def _try(self, shard: Shard, attempt: int) -> Outcome | None:
        fault = self.faults.get(shard.uri[4], "")
        if fault == "dies" or (fault == "dies at first" and attempt == 1):
            return None
        if fault in ("fails", "hopeless"):
            return Outcome(shard.name, shard.size, f"it {fault}", final=fault == "hopeless")
        self.ledger.commit(commit_of(shard), {})
        return Outcome(shard.name, shard.size)


def commit_of(shard: Shard, size: int = 10) -> Commit:
    counts = {"samples": 0, "prompts": 0, "prompts_cut": 0, "masks": 0}
    return Commit(
        shard=shard.name,
        fingerprint="",
        uri=shard.uri,
        bytes=size,
        statuses={},
        rejects={},
        files={},
        seconds=0.0,
        attempt=1,
        degraded=False,
        incomplete="",
        **counts,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


def run(ledger: Ledger, executor: Executor, max_attempts: int = 3) -> dict[str, str]:
    config = AnnotateConfig(engine=ExecutionConfig(max_attempts=max_attempts))
    run_passes(config, ledger, SHARDS, executor)
    return {shard.uri[4]: ledger.failures().get(shard.name, "") for shard in SHARDS}


def test_one_pass_where_nothing_goes_wrong(ledger: Ledger) -> None:
    executor = Executor(ledger)
    assert run(ledger, executor) == {"a": "", "b": "", "c": ""}
    assert executor.calls == [("abc", 1, 2)]


def test_a_loss_in_the_first_pass_is_no_attempt(ledger: Ledger) -> None:
    executor = Executor(ledger, b="dies at first")
    assert run(ledger, executor, max_attempts=1) == {"a": "", "b": "", "c": ""}
    assert executor.calls == [("abc", 1, 2), ("b", 2, 1)]


def test_a_deadly_shard_fails_alone(ledger: Ledger) -> None:
    executor = Executor(ledger, b="dies")
    assert run(ledger, executor, max_attempts=2) == {"a": "", "b": WORKER_DIED, "c": ""}
    assert executor.calls == [("abc", 1, 2), ("b", 2, 1), ("b", 3, 1)]


def test_a_failing_shard_is_tried_so_often_and_a_hopeless_one_once(ledger: Ledger) -> None:
    executor = Executor(ledger, a="fails", c="hopeless")
    assert run(ledger, executor) == {"a": "it fails", "b": "", "c": "it hopeless"}
    assert executor.calls == [("abc", 1, 2), ("a", 2, 1), ("a", 3, 1)]


def test_plan(ledger: Ledger) -> None:
    ledger.commit(commit_of(A), {})
    ledger.commit(commit_of(B, size=9), {})
    ledger.fail(C, "broken")
    first = plan(AnnotateConfig(), ledger, SHARDS)
    assert (first.committed, first.again.keys(), first.given_up) == ({A.name}, {B.name}, {C.name})
    assert first.todo == [B]
    assert [commit.shard for commit in first.known] == [A.name]
    assert plan(AnnotateConfig(retry_failed=True), ledger, SHARDS).todo == [B, C]


def test_a_commit_takes_the_failure_away(ledger: Ledger) -> None:
    ledger.fail(A, "broken")
    ledger.commit(commit_of(A), {})
    assert ledger.failures() == {}
