"""What the driver knows of a worker that lives elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.run.placement import Needs
from pipeline.run.queue import Trial

PATIENT_SECONDS = 5.0
"""That workers may wait for room before anybody asks why."""
Nodes = Callable[[], Iterable[Mapping[str, Any]]]
"""Asks for the nodes of the cluster, as `ray.nodes()` has them."""


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


def superfluous(members: Iterable[Member], spares: int) -> list[Member]:
    """Who has nothing to do where no shard waits, but for some in case that one fails.

    Args:
        members: all.
        spares: how many of those that could try a shard stay, on as many nodes as there are, and
            where nobody is busy before all: the next try of a shard is to be on another node.
    """
    members = list(members)
    busy = {member.node for member in members if member.trials}
    idle = [member for member in members if member.is_waiting or member.is_ready]
    idle = [member for member in idle if not member.trials]
    ready = [member for member in idle if member.is_ready]
    first_of_node = {member.node: member for member in reversed(ready)}.values()
    ready.sort(key=lambda member: (member not in first_of_node, member.node in busy))
    kept = ready[:spares]
    return [member for member in idle if member not in kept]


def waits_for(members: Sequence[Member], needs: Needs, nodes: Nodes) -> str:
    """What all workers wait for, in words, if none of them can try shards."""
    waiting = [member for member in members if member.is_waiting]
    if not waiting or len(waiting) < len(members):
        return "" if any(member.is_ready for member in members) else "loading the model"
    line = f"waiting for the start of workers, each of which needs {needs}"
    seconds = _waited(waiting)
    if seconds < PATIENT_SECONDS:
        return f"{line}: {len(waiting)}"
    return f"{line}: {len(waiting)}, for {seconds:.0f} s: {needs.missing(nodes())}"


def lacks(members: Sequence[Member], needs: Needs, nodes: Nodes) -> str:
    """What some workers wait for, in words, while others have what they need."""
    members = list(members)  # another thread asks
    waiting = [member for member in members if member.is_waiting]
    seconds = _waited(waiting)
    if len(waiting) == len(members) or seconds < PATIENT_SECONDS:
        return ""
    return (
        f"{len(waiting):,} of {len(members):,} workers wait for {needs}, for {seconds:.0f} s: "
        f"{needs.missing(nodes())}"
    )


def _waited(members: Iterable[Member]) -> float:
    """Seconds that the first of some members has waited for room; 0 without any."""
    return max((time.monotonic() - member.started_at for member in members), default=0.0)
