"""What a run has to do: its input compared with what is committed, and with what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit


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
