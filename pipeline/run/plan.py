"""What a run has to do: its input compared with what is committed, and with what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.index import CommitTable
from pipeline.outputs.ledger import Ledger


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        shards: all that the input names.
        committed: names of those that are done.
        again: names of those that were done and are done again → why.
        dated: names of those of which only the date is another one than when they were done.
        given_up: names of those that an earlier run gave up for good.
        transient: names of those that it gave up for a reason that may have passed.
        todo: what is left.
        known: the commits that stay, also of shards that the input does not name.
    """

    shards: Sequence[Shard]
    committed: set[str]
    again: dict[str, str]
    dated: list[str]
    given_up: set[str]
    transient: set[str]
    todo: list[Shard]
    known: CommitTable


def plan(
    config: RunConfig,
    ledger: Ledger,
    shards: Sequence[Shard],
    damaged: Mapping[str, str] | None = None,
) -> Plan:
    """Compare the input, and the tables that are there, with what is committed.

    Args:
        config: of the run.
        ledger: its output.
        shards: all that the input names.
        damaged: names of shards with tables that were read and are damaged → how.
    """
    commits, foreign = ledger.survey()
    names = {shard.name: shard for shard in shards}
    own = set(commits.names)
    again = {name: "other settings made it" for name in foreign}
    again |= ledger.damages(commits) | dict(damaged or {})
    other_size, dated = _changed(names, commits)
    again |= other_size
    if config.on_changed == "redo":
        again |= dict.fromkeys(dated, "it has another date than when it was done")
        dated = []
    again = {name: why for name, why in again.items() if name in names}
    committed = (own & names.keys()) - again.keys()
    failures = ledger.given_up()
    transient = {name for name, failure in failures.items() if failure.transient} & names.keys()
    given_up = set() if config.retry_failed else failures.keys() - transient - own
    done = committed | given_up
    todo = [shard for name, shard in names.items() if name not in done]
    stay = commits.without(again.keys())
    return Plan(shards, committed, again, dated, given_up, transient, todo, stay)


def _changed(names: Mapping[str, Shard], commits: CommitTable) -> tuple[dict[str, str], list[str]]:
    """Shards that are no longer what was read: of another size → which, and only of another date.

    A web server need not say how long a file is, nor of when.
    """
    other_size, dated = {}, []
    for name, size, modified in commits.rows("shard", "bytes", "modified"):
        now = names.get(name)
        if now is None:
            continue
        if now.size and size not in (now.size, 0):
            other_size[name] = f"it had {size:,} bytes, and has {now.size:,} now"
        elif now.modified and modified not in (now.modified, ""):
            dated.append(name)
    return other_size, dated
