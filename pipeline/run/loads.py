"""Where the model loads, and where it does not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import ModelError, StorageError
from pipeline.log import Event, say

MOST_FAILURES = 3
"""So often in a row the model may fail to load on a node, or anywhere before it ever has."""
MOST_LOSSES = 20
"""So many workers in a row may be lost without a shard at hand: nodes come and go."""
LONGEST_PAUSE = 60.0
"""Seconds until another worker is started, where the storage was away as one loaded its model."""


@dataclass
class Loads:
    """What became of the model on every node.

    Attributes:
        patience_seconds: for so long loading is tried again that fails for want of storage.
        say: called with a line for people.
        clock: seconds, of whatever beginning.
        left_out: nodes where no worker is started any more → why.
    """

    patience_seconds: float
    say: Callable[[str], object] = say
    clock: Callable[[], float] = time.monotonic
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._failures: Counter[str] = Counter()  # by node, since the model was loaded there
        self._has_loaded = False
        self._told = ""  # why not, by a worker that lived to say it
        self._losses = 0
        self._away_since: float | None = None
        self._pause, self._not_before = 1.0, 0.0

    def may_start(self, loading: bool) -> bool:
        """Whether another worker may be started.

        Before the model has loaded anywhere, those that fail are not replaced while others try:
        a thousand workers with a wrong setting need not find that out twice.

        Args:
            loading: whether any worker is loading its model.
        """
        if self.clock() < self._not_before:
            return False
        return self._has_loaded or not (self._failures and loading)

    def succeeded(self, node: str) -> None:
        """Take down that a worker on this node has its model."""
        self._has_loaded = True
        self._failures.pop(node, None)
        self._losses = 0
        self._away_since, self._pause = None, 1.0

    def failed(
        self, node: str, host: str, cause: str, *, died: bool, others: bool, waiting: bool = False
    ) -> None:
        """Take down that a worker on this node has not got its model.

        Args:
            node: which.
            host: its name for people.
            cause: why.
            died: whether the worker died of it; else it said why, and would say it again.
            others: whether other workers are still loading theirs.
            waiting: whether others wait for room, maybe on a node that is not there yet: this one
                may be broken, until another fails, too, or this is left out.

        Raises:
            ModelError: it loads nowhere.
        """
        self._failures[node] += 1
        times = self._failures[node]
        self._told = self._told or ("" if died else cause)
        may_be_the_node = waiting and len(self._failures) == 1
        if not self._has_loaded and not others and not may_be_the_node:
            if self._told:
                raise ModelError(self._told)
            if self._failures.total() >= MOST_FAILURES:
                raise ModelError(f"the model did not load, {MOST_FAILURES} times: {cause}")
        line = f"the model did not load on {host}, time {times}: {cause}"
        self.say(Event("not_loaded", line, "warning", host=host, times=times, reason=cause))
        if times >= MOST_FAILURES and node not in self.left_out:
            self.left_out[node] = cause
            line = f"left out: {host}, where the model does not load: {cause}"
            self.say(Event("left_out", line, "warning", host=host, reason=cause))

    def not_available(self, host: str, cause: str) -> None:
        """Take down that the storage was away as a worker loaded its model: nobody's fault.

        Raises:
            StorageError: it has been for too long.
        """
        now = self.clock()
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since >= self.patience_seconds:
            raise StorageError(f"no worker could load its model: {cause}; the same command goes on")
        self._not_before = now + self._pause
        line = (
            f"not available: as the model was loaded on {host}: {cause}; tried again in "
            f"{self._pause:.0f} s"
        )
        self.say(Event("not_available", line, "warning", host=host, reason=cause))
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def lost(self, what: str) -> None:
        """Take down that a worker was lost which had no shard.

        Raises:
            ModelError: that happens again and again.
        """
        self._losses += 1
        self.say(Event("lost", what, "warning", times=self._losses))
        if self._losses >= MOST_LOSSES:
            raise ModelError(f"{self._losses} workers were lost in a row, the last: {what}")
