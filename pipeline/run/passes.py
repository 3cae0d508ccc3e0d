"""The order in which shards are tried, again where it takes that, and given up.

The ledger is the only truth: a pass is over the shards that are not committed, whatever became of
them. First all of them, several at once on each worker. A shard that takes its worker down takes
others with it, so that this pass is no attempt yet; what it leaves is tried alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.run.worker import Outcome

WORKER_DIED = (
    "its worker died (killed, out of memory, or without progress for --engine.stall_seconds); "
    "the job's log has the end of it"
)
UNSEEN = (
    "its worker committed it, but not where this process looks: --output has to be a place that "
    "all nodes share"
)


Execute = Callable[[Sequence[Shard], int, int], list[Outcome]]
"""Tries some shards: (shards, attempt, how many at once on each worker) → what it knows of them."""


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
