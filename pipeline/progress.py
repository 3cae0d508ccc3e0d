"""What a run says while it works, and when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from pipeline.ledger import Summary


@contextmanager
def progress_lines(
    images: Callable[[], int], shards: Callable[[], int], total: int, seconds: float
) -> Iterator[None]:
    """Print a plain line every so often while the body runs: one that a job log can hold.

    Args:
        images: how many images are done.
        shards: how many shards are.
        total: how many shards there are to do.
        seconds: between lines.
    """
    stop = threading.Event()
    started = time.monotonic()

    def report() -> None:
        elapsed = time.monotonic() - started
        done = images()
        print(
            f"[{elapsed:7.0f} s] {shards()} of {total} shards, {done:,} images, "
            f"{done / elapsed:.1f} images/s",
            flush=True,
        )

    def run() -> None:
        while not stop.wait(seconds):
            report()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    report()


def print_summary(summary: Summary, output: str, seconds: float) -> None:
    """The closing table: totals over everything committed in `output`."""
    table = Table(title=f"Annotations in {output}", title_justify="left", show_header=False)
    for name, value in _lines(summary, seconds):
        table.add_row(name, value)
    Console(highlight=False).print(table)


def print_failures(failures: Mapping[str, str], summary: Summary) -> None:
    """A line for every shard that should be committed and is not, with the reason."""
    for shard in summary.missing:
        print(f"not committed: {shard}: {failures.get(shard, 'it was not reached')}", flush=True)


def _lines(summary: Summary, seconds: float) -> Sequence[tuple[str, str]]:
    of_all = f"{summary.shards:,} of {summary.shards + len(summary.missing):,}"
    statuses = [(f"images {status}", f"{n:,}") for status, n in summary.statuses.items()]
    rejects = [(f"rejected: {reason}", f"{n:,}") for reason, n in summary.rejects.items()]
    return [
        ("shards committed", of_all),
        ("images", f"{summary.samples:,}"),
        *statuses,
        *rejects,
        ("image-prompt pairs", f"{summary.prompts:,}"),
        ("masks", f"{summary.masks:,}"),
        ("this run", f"{seconds:.1f} s"),
    ]
