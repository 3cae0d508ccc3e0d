"""What a run has done and what it holds, added up while it works."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.outputs.books.cost import Cost


class Work:
    """Totals of this run alone: of the shards that were committed, and of the workers it has had.

    Attributes:
        price: of an hour of a GPU or worker; None where nobody has said.
        images: in these shards.
        masks: of them.
        statuses: images by status.
        rejects: rejected images by reason.
        stages: seconds by stage.
        shard_seconds: that the shards took, each on its worker.
        thread_seconds: the same, each as often as it had threads that decode.
    """

    def __init__(
        self, price: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is done yet, and nothing is held."""
        self.price = price
        self.images, self.masks = 0, 0
        self.statuses, self.rejects = Counter[str](), Counter[str]()
        self.stages = Counter[str]()
        self.shard_seconds, self.thread_seconds = 0.0, 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._held: int | float = 0
        self._unit = "GPU"
        self._since = clock()
        self._unit_seconds, self._seconds = 0.0, 0.0

    def add(self, record: str) -> None:
        """Count a shard by what its commit says; nothing where that is not known."""
        if not record:
            return
        commit = json.loads(record)
        self.images += commit["samples"]
        self.masks += commit["masks"]
        self.statuses.update(commit["statuses"])
        self.rejects.update(commit["rejects"])
        self.stages.update(commit["stages"])
        self.shard_seconds += commit["seconds"]
        self.thread_seconds += commit["seconds"] * commit["threads"]

    @property
    def held(self) -> int | float:
        """GPUs or workers that are held."""
        return self._held

    def hold(self, number: int | float, unit: str, since: float | None = None) -> None:
        """Take down that from now on so many GPUs or workers are held.

        Args:
            number: 0 where the last of them is gone.
            unit: "GPU", or "worker" where there is no GPU.
            since: by the clock, if that was earlier and nothing was held before.
        """
        with self._lock:
            self._settle()
            if since is not None and not self._held:
                self._since = since
            self._held, self._unit = number, unit

    @contextmanager
    def returned(self) -> Iterator[None]:
        """What is held in the body is given back at its end."""
        try:
            yield
        finally:
            self.hold(0, self._unit)

    def cost(self) -> Cost:
        """What this run has taken so far."""
        with self._lock:
            self._settle()
            hours = self._unit_seconds / 3600
        money = None if self.price is None else hours * self.price
        return Cost(self.images, self._seconds, hours, self._unit, money)

    def _settle(self) -> None:
        now = self._clock()
        if self._held:
            self._unit_seconds += (now - self._since) * self._held
            self._seconds += now - self._since
        self._since = now
