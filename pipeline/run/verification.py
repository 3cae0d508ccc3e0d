"""Reading all that is committed again, to see whether it is still what was written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.config import ExecutionConfig
from pipeline.inputs.look_ahead import map_ahead
from pipeline.log import Event
from pipeline.outputs.ledger import Ledger
from pipeline.run.progress import shown

READERS = 16
"""Shards that are read at once, each with tables of some MB."""


@dataclass
class Verified:
    """How far the reading is.

    Attributes:
        shards: that are committed.
        done: of these.
        damaged: of those.
    """

    shards: int
    done: int = 0
    damaged: int = 0

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""
        return self.done / self.shards if self.shards else 1.0

    def line(self) -> Event:
        """The state in one line."""
        line = f"verified {self.done:,} of {self.shards:,} shards, {self.damaged:,} damaged"
        return Event("verified", line, shards=self.done, of=self.shards, damaged=self.damaged)


def verify(ledger: Ledger, seconds: float = ExecutionConfig.log_seconds) -> dict[str, str]:
    """Read and hash every committed table.

    Args:
        ledger: of an output.
        seconds: between two lines that say how far it is.

    Returns:
        Name of every shard with a damaged table → what is wrong.

    Raises:
        OSError: a table is there and cannot be read, so that nothing can be said of it.
    """
    commits = ledger.table()
    state, damaged = Verified(len(commits)), {}
    with shown(state, seconds), ThreadPoolExecutor(READERS) as pool:
        wrongs = map_ahead(pool, ledger.damage, commits, ahead=2 * READERS)
        for shard, wrong in zip(commits.names, wrongs, strict=True):
            state.done += 1
            if wrong:
                state.damaged += 1
                damaged[shard] = wrong
    return damaged
