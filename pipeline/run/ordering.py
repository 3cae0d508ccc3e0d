"""A lock that is given in an order that does not depend on chance."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Priority = tuple[int, ...]
"""The lower goes first; numbers are compared from left to right."""


def no_op() -> None:
    """Do nothing."""


class PriorityLock:
    """A lock that goes to the lowest priority number among those that wait."""

    def __init__(self) -> None:
        """Nobody has it."""
        self._changed = threading.Condition()
        self._waiting: list[Priority] = []
        self._taken = False

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiting)

    @contextmanager
    def take(self, priority: Priority, on_change: Callable[[], None] = no_op) -> Iterator[None]:
        """Wait until it is free and no lower number wants it, and hold it for the `with` block.

        Args:
            priority: of who asks.
            on_change: called while waiting, whenever somebody has had the turn. What it raises
                ends the wait.
        """

        def is_next() -> bool:
            on_change()
            return not self._taken and min(self._waiting) == priority

        with self._changed:
            self._waiting.append(priority)
            try:
                self._changed.wait_for(is_next)
                self._taken = True
            except BaseException:
                self._changed.notify_all()  # others may have waited for this one
                raise
            finally:
                self._waiting.remove(priority)
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
