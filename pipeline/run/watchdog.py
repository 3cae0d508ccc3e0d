"""Ends the process when its work stands still."""

from __future__ import annotations

import faulthandler
import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """A deadline for every piece of work in flight, moved on by each sign of life.

    When one passes, every thread's traceback goes to stderr and the process exits with 1. That is
    faulthandler's doing, in a C thread: a Python thread could not act while other code holds the
    interpreter, which is how a hang often looks. There is one such timer per process, so that all
    work shares it and it is set to the earliest deadline.
    """

    def __init__(self, seconds: float) -> None:
        """Allow `seconds` between two signs of life."""
        self._seconds = seconds
        self._deadlines: dict[int, float] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @contextmanager
    def watch(self) -> Iterator[Callable[[], None]]:
        """Watch the body; it is given a function to call at every sign of life.

        From threads that outlive the body the function does nothing.
        """
        number = next(self._numbers)

        def alive() -> None:
            with self._lock:
                if number in self._deadlines:
                    self._deadlines[number] = time.monotonic() + self._seconds
                    self._arm()

        with self._lock:
            self._deadlines[number] = math.inf
        alive()
        try:
            yield alive
        finally:
            with self._lock:
                del self._deadlines[number]
                self._arm()

    def _arm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._deadlines and sys.__stderr__:
            left = max(0.001, min(self._deadlines.values()) - time.monotonic())
            faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__)
