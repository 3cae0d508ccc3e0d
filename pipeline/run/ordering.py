"""Whose turn it is, in an order that does not depend on chance."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Rank = tuple[int, ...]
"""What goes first has the lower one."""


def nothing() -> None:
    """What is called where nobody wants to know."""


class Turn:
    """A lock for which nobody waits longer than who is behind in rank."""

    def __init__(self) -> None:
        """Nobody has it."""
        self._changed = threading.Condition()
        self._waiting: list[Rank] = []
        self._taken = False

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiting)

    @contextmanager
    def take(self, rank: Rank, on_change: Callable[[], None] = nothing) -> Iterator[None]:
        """Wait until it is free and no lower rank wants it, and hold it for the `with` block.

        Args:
            rank: of who asks.
            on_change: called while waiting, whenever somebody has had the turn. What it raises
                ends the wait.
        """

        def is_next() -> bool:
            on_change()
            return not self._taken and min(self._waiting) == rank

        with self._changed:
            self._waiting.append(rank)
            try:
                self._changed.wait_for(is_next)
                self._taken = True
            except BaseException:
                self._changed.notify_all()  # others may have waited for this rank
                raise
            finally:
                self._waiting.remove(rank)
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
