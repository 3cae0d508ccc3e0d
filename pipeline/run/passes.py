"""The order in which shards are tried, again where it takes that, and given up.

The ledger is the only truth: a pass is over the shards that are not committed, whatever became of
them. First all of them, several at once on each worker. A shard that takes its worker down takes
others with it, so that this pass is no attempt yet; what it leaves is tried alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit
from pipeline.run.worker import Outcome

WORKER_DIED = (
    "its worker died (killed, out of memory, or without progress for --engine.stall_seconds); "
    "the job's log has the end of it"
)
UNSEEN = (
    "its worker committed it, but not where this process looks: --output has to be a place that "
    "all nodes share"
)


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        shards: all that the input names.
        committed: names of those that are done.
        changed: names of those that are done, but have another size now: they are done again.
        given_up: names of those that an earlier run gave up.
        todo: what is left.
        known: the commits that stay, also of shards that the input does not name.
    """

    shards: Sequence[Shard]
    committed: set[str]
    changed: set[str]
    given_up: set[str]
    todo: list[Shard]
    known: list[Commit]


Execute = Callable[[Sequence[Shard], int, int], list[Outcome]]
"""Tries some shards: (shards, attempt, how many at once on each worker) → what it knows of them."""


def plan(config: RunConfig, ledger: Ledger, shards: Sequence[Shard]) -> Plan:
    """Compare the input with what is committed."""
    commits = ledger.commits()
    sizes = {commit.shard: commit.bytes for commit in commits}
    # A web server need not say how long a file is.
    changed = {s.name for s in shards if s.size and sizes.get(s.name, s.size) not in (s.size, 0)}
    committed = {s.name for s in shards if s.name in sizes} - changed
    given_up = set() if config.retry_failed else ledger.failed() - sizes.keys()
    todo = [s for s in shards if s.name not in committed | given_up]
    known = [commit for commit in commits if commit.shard not in changed]
    return Plan(shards, committed, changed, given_up, todo, known)


def run_passes(config: RunConfig, ledger: Ledger, todo: Sequence[Shard], execute: Execute) -> None:
    """Try every shard until it is committed, or record why it was given up."""
    errors: dict[str, str] = {}
    attempts: Counter[str] = Counter()
    left = list(todo)
    in_flight = config.engine.shards_in_flight
    number = 0
    while left:
        number += 1
        outcomes = {outcome.shard: outcome for outcome in execute(left, number, in_flight)}
        for shard in left:
            outcome = outcomes.get(shard.name)
            if outcome or number > 1:
                attempts[shard.name] += 1
            if outcome and outcome.final:
                attempts[shard.name] = config.engine.max_attempts
            errors[shard.name] = (outcome.error or UNSEEN) if outcome else WORKER_DIED
        committed = ledger.committed()
        missing = [shard for shard in left if shard.name not in committed]
        left = [s for s in missing if attempts[s.name] < config.engine.max_attempts]
        for shard in missing:
            if shard not in left:
                ledger.fail(shard, errors[shard.name])
        in_flight = 1
