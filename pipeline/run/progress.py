"""What a run says while it works, and when it is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

import legrad
from pipeline import storage
from pipeline.config import AnnotateConfig
from pipeline.outputs.heartbeat import every, say
from pipeline.outputs.records import Summary
from pipeline.outputs.schema import schemas
from pipeline.run.plan import Plan
from pipeline.run.queue import ShardQueue

SHOWN = 3
"""Names of many, in a line."""


@runtime_checkable
class Gauge(Protocol):
    """What can be shown while it rises."""

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""

    def line(self) -> str:
        """The state in one line."""


@dataclass
class Meter:
    """How far a run over some shards is. The images are counted by whoever knows of them.

    Attributes:
        queue: of all that are to be done.
        images: tells how many images are done, also of shards that are not yet.
        waits_for: tells what all workers wait for, if they do.
        gpus: busy in parallel, for the projection of GPU-hours; 0 for none.
    """

    queue: ShardQueue
    images: Callable[[], int]
    waits_for: Callable[[], str]
    gpus: int

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._total_bytes = sum(shard.size for shard in self.queue.shards)

    @property
    def fraction(self) -> float:
        """Done, by bytes of finished shards; by their number where sizes are unknown."""
        if self._total_bytes:
            return self.queue.ended_bytes / self._total_bytes
        return self.queue.ended / len(self.queue.shards)

    def line(self) -> str:
        """The state in one line: shards, images, pace and, after the first shards, what is left."""
        images, ended = self.images(), self.queue.ended
        now = time.monotonic()
        elapsed = now - self._started
        shards = f"{ended:,} of {len(self.queue.shards):,} shards"
        waits_for = self.queue.state() or self.waits_for()
        if not images and not ended:
            self._started = now  # the time to load models is no measure of what is to come
            return f"{shards}, {waits_for or 'loading the first images'}"
        parts = [shards, f"{images:,} images", _pace(images, elapsed)]
        if waits_for:
            return ", ".join([*parts, waits_for])
        if 0 < self.fraction < 1:
            hours = elapsed * (1 - self.fraction) / self.fraction / 3600
            parts.append(f"{_duration(hours)} left")
            if self.gpus:
                total = (elapsed / 3600 + hours) * self.gpus
                parts.append(f"{total:.1f} GPU-hours in all")
        return ", ".join(parts)


@contextmanager
def shown(meter: Gauge, seconds: float) -> Iterator[None]:
    """Show `meter` while the body runs: a bar on a terminal, else a line every `seconds`."""
    if sys.stdout.isatty():
        with Live(get_renderable=lambda: _bar(meter), refresh_per_second=2):
            yield
        return

    def report() -> None:
        say(meter.line())

    try:
        with every(seconds, report, "progress"):
            yield
    finally:
        report()


def print_plan(plan: Plan) -> None:
    """What a run is going to do."""
    again = f", {len(plan.transient):,} of them again after outages" if plan.transient else ""
    print(
        f"{len(plan.shards):,} shards: {len(plan.committed):,} committed, "
        f"{len(plan.given_up):,} given up before (--retry_failed tries them again), "
        f"{len(plan.todo):,} to do{again}",
        flush=True,
    )
    if plan.dated:
        first = ", ".join(plan.dated[:SHOWN]) + ", …" * (len(plan.dated) > SHOWN)
        print(
            f"{len(plan.dated):,} shards have another date than when they were done, but the same "
            f"size ({first}): --on_changed redo does them again",
            flush=True,
        )
    for name, why in sorted(plan.again.items()):
        print(f"done again: {name}: {why}", flush=True)


def print_dry_run(config: AnnotateConfig, plan: Plan, changes: Sequence[str]) -> None:
    """The plan in full: shards, settings that change results, and the schemas."""
    print_plan(plan)
    for change in changes:
        print(f"another configuration made what is in the output: {change}")
    names = {shard.name for shard in plan.todo}
    for shard in plan.shards:
        state = "to do" if shard.name in names else "skipped"
        print(f"{state:8} {shard.name}  {shard.size:,} bytes  {storage.public(shard.location)}")
    results = config.identity()
    print(f"fingerprint {config.fingerprint()} of {json.dumps(results, indent=2)}")
    titles = ("annotations", "images")
    for title, schema in zip(titles, schemas(results, legrad.clips(config.method)), strict=True):
        print(f"\n{title}/<shard>.parquet")
        print(schema.to_string(show_schema_metadata=False))


def print_summary(summary: Summary, output: str, seconds: float | None = None) -> None:
    """The closing table: totals over what is committed in `output`."""
    print(f"Results in {storage.shown(output)}", flush=True)  # a table would wrap it
    table = Table(show_header=False)
    for name, value in _lines(summary):
        table.add_row(name, value)
    if seconds is not None:
        table.add_row("this run", f"{seconds:.1f} s")
    Console(highlight=False).print(table)


def print_failures(failures: Mapping[str, str], summary: Summary) -> None:
    """A line for every shard that is missing or incomplete, with the reason."""
    for shard in summary.missing:
        print(f"not committed: {shard}: {failures.get(shard, 'it was not reached')}", flush=True)
    for shard, reason in summary.incomplete.items():
        print(f"incomplete: {shard}: {reason}", flush=True)


def _bar(meter: Gauge) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(total=1.0, completed=meter.fraction, width=24), meter.line())
    return row


def _pace(images: int, seconds: float) -> str:
    if images and images < seconds:
        return f"{seconds / images:.1f} s per image"
    return f"{images / seconds:.1f} images/s"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"


def _lines(summary: Summary) -> Sequence[tuple[str, str]]:
    known = summary.shards + len(summary.missing)  # the last run's input may have been a part
    of_all = f"{summary.shards:,} of {max(summary.planned, known):,}"
    statuses = [(f"images {status}", f"{n:,}") for status, n in summary.statuses.items()]
    rejects = [(f"rejected: {reason}", f"{n:,}") for reason, n in summary.rejects.items()]
    cut = [("prompts cut at the context", f"{summary.prompts_cut:,}")]
    return [
        ("shards committed", of_all),
        ("images", f"{summary.samples:,}"),
        *statuses,
        *rejects,
        ("image-prompt pairs", f"{summary.prompts:,}"),
        *(cut if summary.prompts_cut else []),
        ("masks", f"{summary.masks:,}"),
    ]
