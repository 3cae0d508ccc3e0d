"""A run of any size in simulated time: what its tail, its retries and its losses cost.

Which shard is tried, when and how often is decided by the very `ShardQueue` that runs have; actors,
the driver, nodes that come and go and a storage that is away now and then are events in a heap.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pipeline.config import ExecutionConfig
from pipeline.inputs.shards import Shard
from pipeline.run.queue import Outcome, ShardQueue, Trial


@dataclass(frozen=True)
class Cluster:
    """What a run is done with, and what befalls it. Seconds, where nothing else is said."""

    actors: int
    engine: ExecutionConfig = field(default_factory=ExecutionConfig)
    load: float = 0.0  # until an actor that is placed has its model
    driver: float = 0.0  # that the driver takes for every shard that ends
    losses: float = 0.0  # of nodes, for each actor and hour
    replaced: float = 0.0  # after which a lost node has a successor
    deaths: float = 0.0  # of workers, for each try
    outages: float = 0.0  # of the storage, for each hour
    away: float = 0.0  # for so long, on average
    noticed: float = 6.4  # after which a request that gets no answer is an error
    kept: float = 60.0  # that a node is paid for whose actor was ended, as by an autoscaler


@dataclass(frozen=True)
class Times:
    """Of one try of a shard: until it wants the model, with the model, and from then to its end."""

    read: float
    model: float
    write: float


@dataclass(eq=False)
class _Actor:
    placed: float
    alive: bool = True
    trials: dict[int, Trial] = field(default_factory=dict)
    waiting: list[tuple[int, Times]] = field(default_factory=list)
    has_model: int | None = None


class Simulation:
    """One run."""

    def __init__(
        self, cluster: Cluster, shards: int, times: Callable[[Trial], Times], seed: int = 0
    ) -> None:
        """Take what is done with what; `times` says how long each try takes."""
        self.cluster, self._times, self._random = cluster, times, random.Random(seed)
        self.now, self._heap, self._number = 0.0, list[Any](), count()
        self._driver_free, self._away_until, self._drained, self._waiting = 0.0, -1.0, 0.0, True
        self._actors, self._idle = dict[_Actor, None](), dict[_Actor, None]()
        self._left, self._coming = dict[_Actor, None](), 0  # nodes without an actor; new ones
        self.held = self.useful = self.model = 0.0
        self.tries = self.lost = self.transient = 0
        names = [f"/{i:07d}.tar" for i in range(shards)]
        self.queue = ShardQueue(
            cluster.engine,
            [Shard(name, name, 1) for name in names],
            give_up=lambda *_: None,
            say=lambda _: None,
            clock=lambda: self.now,
        )

    def run(self) -> dict[str, float]:
        """Until nothing is left; what it took, in seconds, and how often what happened."""
        cluster = self.cluster
        for _ in range(min(cluster.actors, len(self.queue.shards))):
            self._call(0.0)
        if cluster.outages:
            self._at(self._random.expovariate(cluster.outages / 3600), self._outage)
        self._at(0.0, self._look)
        while not self.queue.is_over:
            self.now, _, event, arguments = heapq.heappop(self._heap)
            event(*arguments)
            waiting = bool(self.queue.waiting)
            self._drained = self.now if waiting or self._waiting else self._drained
            self._waiting = waiting
        self.held += sum(self.now - actor.placed for actor in (*self._actors, *self._left))
        return {
            "seconds": self.now,
            "tail": self.now - self._drained,
            "held": self.held,
            "busy": self.useful / self.held,
            "wasted": self.model - self.useful,
            "driver": self._driver_free and len(self.queue.shards) * cluster.driver / self.now,
            "tries": self.tries,
            "lost": self.lost,
            "transient": self.transient,
            "given_up": self.queue.ended - len(self.queue.done),
        }

    def _at(self, after: float, event: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._heap, (self.now + after, next(self._number), event, arguments))

    def _call(self, after: float) -> None:
        self._coming += 1
        self._at(after, self._place)

    def _place(self) -> None:
        self._coming -= 1
        if not self.queue.waiting:
            return
        actor = _Actor(self.now)
        self._actors[actor] = None
        self._at(self.cluster.load, self._fill, actor)
        if self.cluster.losses:
            hours = self._random.expovariate(self.cluster.losses)
            self._at(hours * 3600, self._end, actor, True)

    def _fill(self, actor: _Actor) -> None:
        """What the executor does for an actor that can take another shard."""
        if not actor.alive:
            return
        self._idle.pop(actor, None)
        for trial in self.queue.fill(actor.trials.values(), self.cluster.engine.shards_in_flight):
            number, times = next(self._number), self._times(trial)
            actor.trials[number] = trial
            self.tries += 1
            if self.now < self._away_until:
                self._at(self.cluster.noticed, self._answer, actor, number, False, 0.0)
            else:
                self._at(times.read, self._wait_for_model, actor, number, times)
        if not actor.trials:
            self._idle[actor] = None
            self._release()

    def _wait_for_model(self, actor: _Actor, number: int, times: Times) -> None:
        heapq.heappush(actor.waiting, (number, times))  # what was begun first has it first
        self._next_with_model(actor)

    def _next_with_model(self, actor: _Actor) -> None:
        if actor.alive and actor.has_model is None and actor.waiting:
            number, times = heapq.heappop(actor.waiting)
            actor.has_model = number
            self._at(times.model, self._has_maps, actor, number, times)

    def _has_maps(self, actor: _Actor, number: int, times: Times) -> None:
        self.model += times.model
        if not actor.alive:
            return
        actor.has_model = None
        if self._random.random() < self.cluster.deaths:
            self._end(actor, False)
            return
        self._next_with_model(actor)
        self._at(times.write, self._write, actor, number, times.model)

    def _write(self, actor: _Actor, number: int, model: float) -> None:
        left = max(0.0, self._away_until - self.now)
        lasts = left > self.cluster.noticed
        self._at(min(left, self.cluster.noticed), self._answer, actor, number, not lasts, model)

    def _answer(self, actor: _Actor, number: int, well: bool, model: float) -> None:
        """The driver, which does one thing at a time, hears how a try has ended."""
        self._driver_free = max(self.now, self._driver_free) + self.cluster.driver
        self._at(self._driver_free - self.now, self._take, actor, number, well, model)

    def _take(self, actor: _Actor, number: int, well: bool, model: float) -> None:
        if not actor.alive:
            return
        self.useful += model if well else 0.0
        self.transient += not well
        outcome = Outcome() if well else Outcome("503", transient=True)
        self.queue.end(actor.trials.pop(number), outcome)
        self._fill(actor)

    def _end(self, actor: _Actor, node_lost: bool) -> None:
        if not actor.alive:
            return
        actor.alive = False
        del self._actors[actor]
        self._idle.pop(actor, None)
        self.held += self.now - actor.placed
        self.lost += 1
        self.queue.lose(list(actor.trials.values()), node_lost, "")
        if self._missing():
            self._call(self.cluster.replaced if node_lost else 0.0)

    def _missing(self) -> int:
        """Actors that the executor starts."""
        here = len(self._actors) + self._coming
        if not self.queue.waiting or here >= self.cluster.actors:
            return 0
        busy = sum(bool(actor.trials) for actor in self._actors)
        return max(0, min(self.cluster.actors, busy + self.queue.waiting) - here)

    def _release(self) -> None:
        """The executor ends actors where nothing waits, but for spares."""
        if self.queue.waiting:
            return
        for actor in list(self._idle)[self.cluster.engine.max_attempts :]:
            actor.alive = False
            del self._actors[actor], self._idle[actor]
            self._left[actor] = None
            self._at(self.cluster.kept, self._give_back, actor)

    def _give_back(self, actor: _Actor) -> None:
        del self._left[actor]
        self.held += self.now - actor.placed

    def _outage(self) -> None:
        self._away_until = self.now + self._random.expovariate(1 / self.cluster.away)
        pause = self._random.expovariate(self.cluster.outages / 3600)
        self._at(self._away_until - self.now + pause, self._outage)

    def _look(self) -> None:
        """The executor looks now and then what has become due."""
        self._release()
        if self.queue.waiting:
            for actor in list(self._idle):
                self._fill(actor)
        for _ in range(self._missing()):
            self._call(0.0)
        self._at(1.0, self._look)
