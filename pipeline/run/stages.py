"""Where the time of a shard goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipeline.outputs.records import STAGES

Item = TypeVar("Item")


class StageClock:
    """Seconds by stage, of all threads that work on one shard together."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add what the `with` block takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.monotonic() - started

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
