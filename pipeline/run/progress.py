"""What a run says while it works, and when it is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

import legrad
from pipeline import storage
from pipeline.config import AnnotateConfig
from pipeline.log import Event, as_objects, say
from pipeline.outputs.books import busy, cost
from pipeline.outputs.heartbeat import every
from pipeline.outputs.records import Summary
from pipeline.outputs.schema import schemas
from pipeline.run.accounts.price import price_lines
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

    Hours and price are of what is held, as in the summary: what the queue's work has taken so far,
    and what it holds now for the time that is left.

    Attributes:
        queue: of all that are to be done.
        images: tells how many images are done, also of shards that are not yet.
        waits_for: tells what all workers wait for, if they do.
        lacks: tells what some of the workers wait for while others work.
    """

    queue: ShardQueue
    images: Callable[[], int]
    waits_for: Callable[[], str]
    lacks: Callable[[], str] = str

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._total_bytes = sum(shard.size for shard in self.queue.shards)
        self._images_before = self.queue.work.images

    @property
    def fraction(self) -> float:
        """Done, by bytes of finished shards; by their number where sizes are unknown."""
        if self._total_bytes:
            return self.queue.ended_bytes / self._total_bytes
        return self.queue.ended / len(self.queue.shards)

    def line(self) -> Event:
        """The state in one line: shards, images, pace and, after the first shards, what is left."""
        images, ended = self.images(), self.queue.ended
        now = time.monotonic()
        elapsed = now - self._started
        shards = f"{ended:,} of {len(self.queue.shards):,} shards"
        waits_for = self.queue.state() or self.waits_for()
        if not images and not ended:
            self._started = now  # the time to load models is no measure of what is to come
            state = waits_for or "loading the first images"
            return self._event([shards, state], ended, images, waits_for=state)
        pace: dict[str, float] = {"images_per_second": images / elapsed} if elapsed else {}
        parts = [shards, f"{images:,} images", _pace(images, elapsed)]
        if waits_for:
            return self._event([*parts, waits_for], ended, images, **pace, waits_for=waits_for)
        if 0 < self.fraction < 1:
            hours = elapsed * (1 - self.fraction) / self.fraction / 3600
            parts.append(f"{_duration(hours)} left")
            pace["hours_left"] = hours
            work = self.queue.work
            spent, coming = work.cost(), hours * work.held
            if spent.unit == "GPU" and spent.hours:
                pace["gpu_hours"] = spent.hours + coming
                parts.append(f"{pace['gpu_hours']:.1f} GPU-hours in all")
            if work.price is not None and spent.money is not None:
                done = replace(spent, images=self._images_before + images)
                each = done.per_million(spent.money) or 0.0
                pace["price"] = spent.money + coming * work.price
                pace["price_per_million_images"] = each
                parts.append(f"price {pace['price']:,.2f} in all, {each:,.2f} per million images")
        lacks = self.lacks()
        if not lacks:
            return self._event(parts, ended, images, **pace)
        return self._event([*parts, lacks], ended, images, **pace, lacks=lacks)

    def _event(self, parts: Sequence[str], ended: int, images: int, **fields: Any) -> Event:
        shards: dict[str, Any] = {
            "shards": ended,
            "of_shards": len(self.queue.shards),
            "images": images,
        }
        return Event("progress", ", ".join(parts), **shards, **fields)


@contextmanager
def shown(meter: Gauge, seconds: float) -> Iterator[None]:
    """Show `meter` while the body runs: a bar on a terminal, else a line every `seconds`."""
    if sys.stdout.isatty() and not as_objects():
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
    line = (
        f"{len(plan.shards):,} shards: {len(plan.committed):,} committed, "
        f"{len(plan.given_up):,} given up before (--retry_failed tries them again), "
        f"{len(plan.todo):,} to do{again}"
    )
    numbers: dict[str, Any] = {
        "shards": len(plan.shards),
        "committed": len(plan.committed),
        "given_up": len(plan.given_up),
        "to_do": len(plan.todo),
    }
    say(Event("plan", line, **numbers))
    if plan.dated:
        first = ", ".join(plan.dated[:SHOWN]) + ", …" * (len(plan.dated) > SHOWN)
        line = (
            f"{len(plan.dated):,} shards have another date than when they were done, but the same "
            f"size ({first}): --on_changed redo does them again"
        )
        say(Event("dated", line, "warning", shards=len(plan.dated)))
    for name, why in sorted(plan.again.items()):
        say(Event("done_again", f"done again: {name}: {why}", "warning", shard=name, reason=why))


def print_dry_run(config: AnnotateConfig, plan: Plan, changes: Sequence[str]) -> None:
    """The plan in full: shards, settings that change results, and the schemas."""
    print_plan(plan)
    for change in changes:
        line = f"another configuration made what is in the output: {change}"
        say(Event("other_settings", line, "warning", change=change))
    for line in price_lines(config, plan):
        say(line)
    names = {shard.name for shard in plan.todo}
    for shard in plan.shards:
        state = "to do" if shard.name in names else "skipped"
        at = storage.public(shard.location)
        line = f"{state:8} {shard.name}  {shard.size:,} bytes  {at}"
        say(Event("shard", line, shard=shard.name, state=state, bytes=shard.size, location=at))
    results, made = config.identity(), config.fingerprint()
    line = f"fingerprint {made} of {json.dumps(results, indent=2)}"
    say(Event("identity", line, fingerprint=made, identity=results))
    titles = ("annotations", "images")
    for title, schema in zip(titles, schemas(results, legrad.clips(config.method)), strict=True):
        columns = schema.to_string(show_schema_metadata=False)
        say(Event("schema", f"\n{title}/<shard>.parquet\n{columns}", table=title))


def print_summary(summary: Summary, output: str, seconds: float | None = None) -> None:
    """The closing table: totals over what is committed in `output`."""
    where = storage.shown(output)
    if as_objects():
        totals = asdict(summary) | {"missing": len(summary.missing)}
        say(Event("summary", f"Results in {where}", output=where, **totals))
        return
    say(f"Results in {where}")  # a table would wrap it
    table = Table(show_header=False)
    for name, value in _lines(summary):
        table.add_row(name, value)
    if seconds is not None:
        table.add_row("this run", f"{seconds:.1f} s")
    Console(highlight=False).print(table)


def print_failures(failures: Mapping[str, str], summary: Summary) -> None:
    """A line for every shard that is missing or incomplete, with the reason."""
    for shard in summary.missing:
        why = failures.get(shard, "it was not reached")
        line = f"not committed: {shard}: {why}"
        say(Event("not_committed", line, "error", shard=shard, reason=why))
    for shard, reason in summary.incomplete.items():
        line = f"incomplete: {shard}: {reason}"
        say(Event("incomplete", line, "warning", shard=shard, reason=reason))


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
    bound = [("bound by", busy.spoken(summary.busy))] if summary.busy else []
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
        *bound,
        *cost.spoken(summary.cost),
    ]
