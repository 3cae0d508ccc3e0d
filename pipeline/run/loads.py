"""Where the model loads, and where it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import ModelError

MOST_FAILURES = 3
"""So often in a row the model may fail to load on a node, or anywhere before it ever has."""
MOST_UNPLACED = 20
"""So many workers in a row may die before they can say where they are: nodes go as they come."""


@dataclass
class Loads:
    """What became of the model on every node.

    Attributes:
        say: called with a line for people.
        left_out: nodes where no worker is started any more → why.
    """

    say: Callable[[str], object] = lambda line: print(line, flush=True)
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._failures: Counter[str] = Counter()  # by node, since the model was loaded there
        self._has_loaded = False
        self._told = ""  # why not, by a worker that lived to say it

    def succeeded(self, node: str) -> None:
        """Take down that a worker on this node has its model."""
        self._has_loaded = True
        for key in (node, ""):
            self._failures.pop(key, None)

    def may_start(self, loading: bool) -> bool:
        """Whether another worker may be started.

        Before the model has loaded anywhere, those that fail are not replaced while others try:
        a thousand workers with a wrong setting need not find that out twice.

        Args:
            loading: whether any worker is loading its model.
        """
        return self._has_loaded or not (self._failures and loading)

    def failed(self, node: str, host: str, cause: str, *, died: bool, others: bool) -> None:
        """Take down that a worker on this node has not got its model.

        Args:
            node: which; empty for a worker that died before it could say.
            host: its name for people.
            cause: why.
            died: whether the worker died of it; else it said why, and would say it again.
            others: whether other workers are still loading theirs.

        Raises:
            ModelError: it loads nowhere.
        """
        self._failures[node] += 1
        times = self._failures[node]
        if not node and times >= MOST_UNPLACED:
            raise ModelError(f"{times} workers died as they started: {cause}")
        self._told = self._told or ("" if died else cause)
        if not self._has_loaded and not others:
            if self._told:
                raise ModelError(self._told)
            if self._failures.total() >= MOST_FAILURES:
                raise ModelError(f"the model did not load, {MOST_FAILURES} times: {cause}")
        self.say(f"the model did not load on {host or 'a node'}, time {times}: {cause}")
        if node and times >= MOST_FAILURES and node not in self.left_out:
            self.left_out[node] = cause
            self.say(f"left out: {host}, where the model does not load: {cause}")
