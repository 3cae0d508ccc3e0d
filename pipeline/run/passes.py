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
        again: names of those that were done and are done again → why.
        given_up: names of those that an earlier run gave up.
        todo: what is left.
        known: the commits that stay, also of shards that the input does not name.
    """

    shards: Sequence[Shard]
    committed: set[str]
    again: dict[str, str]
    given_up: set[str]
    todo: list[Shard]
    known: list[Commit]


Execute = Callable[[Sequence[Shard], int, int], list[Outcome]]
"""Tries some shards: (shards, attempt, how many at once on each worker) → what it knows of them."""


def plan(
    config: RunConfig, ledger: Ledger, shards: Sequence[Shard], known: Sequence[Commit] = ()
) -> Plan:
    """Compare the input, and the tables that are there, with what is committed.

    Args:
        config: of the run.
        ledger: its output.
        shards: all that the input names.
        known: commits that need not be read again.
    """
    there = ledger.committed()
    commits = ledger.commits(known)
    own = {commit.shard: commit for commit in commits}
    names = {shard.name for shard in shards}
    again = {name: "other settings made it" for name in (there & names) - own.keys()}
    again |= {name: what for name, what in ledger.damages(commits).items() if name in names}
    for shard in shards:
        # A web server need not say how long a file is.
        before = own[shard.name].bytes if shard.name in own else 0
        if shard.size and before not in (shard.size, 0):
            again[shard.name] = f"it had {before:,} bytes, and has {shard.size:,} now"
    committed = (own.keys() & names) - again.keys()
    given_up = set() if config.retry_failed else ledger.failed() - own.keys()
    todo = [s for s in shards if s.name not in committed | given_up]
    stay = [commit for commit in commits if commit.shard not in again]
    return Plan(shards, committed, again, given_up, todo, stay)


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
