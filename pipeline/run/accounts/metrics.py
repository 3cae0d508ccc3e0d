"""What those who watch a cluster see of a run: counters and gauges, whoever shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline.errors import one_line
from pipeline.log import Event, say
from pipeline.outputs.books.busy import busy, flying
from pipeline.outputs.heartbeat import every
from pipeline.run.queue import ShardQueue

SECONDS = 5.0
"""Between two updates."""


@dataclass(frozen=True)
class Metric:
    """What is counted or measured.

    Attributes:
        name: of it.
        kind: a counter only rises; a gauge is whatever it is now.
        about: what it is, for people.
        label: what tells its values apart; empty where it has one value only.
    """

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    label: str = ""


METRICS = (
    Metric("legrad_images", "counter", "Images of committed shards.", "status"),
    Metric("legrad_masks", "counter", "Masks of committed shards."),
    Metric("legrad_rejects", "counter", "Rejected images of committed shards.", "reason"),
    Metric("legrad_stage_seconds", "counter", "Seconds of all threads at a stage.", "stage"),
    Metric("legrad_hours", "counter", "Hours of GPUs or workers that were held.", "unit"),
    Metric("legrad_shards", "gauge", "Shards of this run.", "state"),
    Metric("legrad_queue_depth", "gauge", "Shards that no worker has begun."),
    Metric("legrad_held", "gauge", "GPUs that are held; workers, where they have none."),
    Metric("legrad_busy_share", "gauge", "Part of its time that a stage was busy.", "stage"),
)
Put = Callable[[int | float, dict[str, str]], object]
"""Adds to a counter, or sets a gauge, with the value of its label."""
MakeMetric = Callable[[Metric], Put]


@contextmanager
def told(queue: ShardQueue, make: MakeMetric) -> Iterator[None]:
    """Have what is known of a run shown while the body runs, and as it ends.

    Counters rise by what the body adds: a run that does again what others have spoiled comes here
    with what it has counted already.

    Args:
        queue: of the run.
        make: a counter or gauge, in whatever shows it.
    """
    puts = {metric: make(metric) for metric in METRICS}
    known = values(queue)
    before: dict[tuple[str, str], int | float] = {
        (metric.name, label): value
        for metric in METRICS
        for label, value in known[metric.name].items()
    }

    def update() -> None:
        now = values(queue)
        for metric, put in puts.items():
            for label, value in now[metric.name].items():
                key = metric.name, label
                change = value - before.get(key, 0.0)
                before[key] = value
                if metric.kind == "gauge":
                    put(value, {metric.label: label} if metric.label else {})
                elif change > 0:
                    put(change, {metric.label: label} if metric.label else {})

    def tell() -> None:
        try:
            update()
        except Exception as error:  # no reason to stop the run
            why = one_line(error, kind=True)
            say(Event("no_metrics", f"metrics could not be updated: {why}", "warning", reason=why))

    try:
        with every(SECONDS, tell, "metrics"):
            yield
    finally:
        tell()


def values(queue: ShardQueue) -> dict[str, Mapping[str, int | float]]:
    """Name of each of `METRICS` → its values by label."""
    work, cost, done = queue.work, queue.work.cost(), len(queue.done)
    engine = queue.engine
    states = {
        "committed": done,
        "given_up": queue.ended - done,
        "in_flight": queue.in_flight,
        "waiting": queue.waiting,
    }
    return {
        "legrad_images": dict(work.statuses),
        "legrad_masks": {"": work.masks},
        "legrad_rejects": dict(work.rejects),
        "legrad_stage_seconds": dict(work.stages),
        "legrad_hours": {cost.unit: cost.hours},
        "legrad_shards": states,
        "legrad_queue_depth": {"": states["waiting"]},
        "legrad_held": {"": work.held},
        "legrad_busy_share": busy(
            work.stages,
            work.shard_seconds,
            flying(asdict(engine), len(queue.shards)),
            work.thread_seconds / work.shard_seconds if work.shard_seconds else 0,
        ),
    }
