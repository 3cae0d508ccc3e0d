"""What the driver knows of a worker that lives elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.run.queue import Trial


@dataclass(eq=False)
class Member:
    """An actor, and what it has been asked.

    Attributes:
        actor: its handle.
        placing: asks where it is, which is answered once it has found room; and again in doubt.
        loading: asks for the model.
        counting: asks how many images are done.
        trials: what it is trying, by the ref of the answer.
        node: where it is.
        host: the name of that, for people.
        has_model: whether it has loaded.
        images: how many it has done, by the newest number there is.
        asked_at: when it was asked for that.
        started_at: when it was started.
        doubted: refs that were not answered because it was out of reach.
        doubtful_since: when that was first.
    """

    actor: Any
    placing: Any
    loading: Any = None
    counting: Any = None
    trials: dict[Any, Trial] = field(default_factory=dict)
    node: str = ""
    host: str = ""
    has_model: bool = False
    images: int = 0
    asked_at: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.monotonic)
    doubted: set[Any] = field(default_factory=set)
    doubtful_since: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has found no room yet."""
        return not self.node

    @property
    def is_loading(self) -> bool:
        """Whether it is loading its model."""
        return self.loading is not None

    @property
    def is_ready(self) -> bool:
        """Whether it can try shards."""
        return self.has_model and self.placing is None

    def refs(self) -> Iterator[Any]:
        """All that it has not answered yet."""
        asked = (self.placing, self.loading, self.counting, *self.trials)
        return (ref for ref in asked if ref is not None and ref not in self.doubted)

    def ask_for_count(self, seconds: float) -> None:
        """Ask now and then how many images are done; also if idle, for it may be dead."""
        now = time.monotonic()
        if self.is_ready and self.counting is None and now - self.asked_at > seconds:
            self.counting, self.asked_at = self.actor.count.remote(), now
