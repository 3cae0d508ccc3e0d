"""Where the time of a shard goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

STAGES = ("read", "decode", "model", "mask", "write")
"""What the time of a shard goes into.

`read`: getting the bytes of its samples from the tar, and grouping them. `decode`: what is wanted
of each sample, its pixels, and their resize. `model`: explaining batches, once they have the model.
`mask`: from maps to run lengths, the regions of colours that refine them and the wait for the maps
of others included. `write`: rows, Parquet,
and the two tables on their way to the output; not the commit, in which this is written down.
"""


class StageClock:
    """Seconds by stage, of all threads that work on one shard together.

    Stages pass at once, and one of several threads adds up over them: `decode` may well be more
    than the shard took.

    Attributes:
        seconds: by stage, as on the wall, of each thread that does its work.
        processor: by stage, for which these threads had a core; what PyTorch's own threads and
            devices do for them is not in it.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.processor = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add what the `with` block takes."""
        started, used = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.monotonic() - started
                self.processor[stage] += time.thread_time() - used

    @contextmanager
    def helping(self, stage: str) -> Iterator[None]:
        """Add what the `with` block takes of a core, where another thread measures the wait."""
        used = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.processor[stage] += time.thread_time() - used

    def waiting(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with the time that it takes to get each added."""
        source = iter(items)
        while True:
            with self.measure(stage):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def record(self) -> dict[str, dict[str, float]]:
        """What a commit says of it, to the millisecond: its fields `stages` and `processor`."""
        with self._lock:
            both = {"stages": self.seconds, "processor": self.processor}
            return {
                name: {stage: round(took, 3) for stage, took in seconds.items()}
                for name, seconds in both.items()
            }
