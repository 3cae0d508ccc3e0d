"""What a run has to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import AnnotateConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit
from pipeline.run.plan import plan

SHARDS = [Shard(f"/in/{name}.tar", f"/in/{name}.tar", 10) for name in ("a", "b", "c")]
A, B, C = SHARDS


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
