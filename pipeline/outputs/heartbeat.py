"""Signs of life of the process that drives a run: a dead one can be told from a live one."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from pipeline.errors import one_line
from pipeline.log import Event, say

BEAT_SECONDS = 30.0
DEAD_SECONDS = 5 * BEAT_SECONDS
"""A driver that has been silent for so long is taken for dead; clocks may differ by less."""


@dataclass(frozen=True)
class Driver:
    """A process that drives a run.

    Attributes:
        host: its machine.
        pid: its number there.
        started: when it began, ISO 8601 in UTC.
        seen: its last sign of life, likewise.
    """

    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: now().isoformat(timespec="seconds"))
    seen: str = ""

    def record(self) -> dict[str, Any]:
        """As `summary.json` has it, seen now."""
        return asdict(replace(self, seen=now().isoformat(timespec="seconds")))

    @classmethod
    def of(cls, record: dict[str, Any]) -> Driver:
        """Back from `record`.

        Raises:
            TypeError: it has other fields.
            ValueError: its times are none.
        """
        driver = cls(**record)
        _ = driver.silent
        return driver

    def is_(self, other: Driver) -> bool:
        """Whether both are one process."""
        return (self.host, self.pid, self.started) == (other.host, other.pid, other.started)

    @property
    def silent(self) -> float:
        """Seconds since its last sign of life."""
        return (now() - datetime.fromisoformat(self.seen)).total_seconds()

    @property
    def alive(self) -> bool:
        """Whether it has given a sign of life of late."""
        return self.silent < DEAD_SECONDS

    def life(self) -> str:
        """Whether it lives, for people."""
        verdict = "alive" if self.alive else "dead, the same command goes on"
        return f"{self}; last sign of life {spoken(self.silent)} ago: {verdict}"

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def spoken(seconds: float) -> str:
    """A time that has passed, for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"


@contextmanager
def every(seconds: float, work: Callable[[], object], name: str) -> Iterator[None]:
    """Call `work` again and again, in a thread of that name, while the body runs."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def trying(seconds: float, work: Callable[[], object], name: str, complaint: str) -> Iterator[None]:
    """The same; when `work` fails, `complaint` and why is printed, and it is tried again later."""

    def try_to() -> None:
        try:
            work()
        except Exception as error:  # no reason to stop either the run or the next try
            why = one_line(error)
            say(Event("not_written", f"{complaint}: {why}", "warning", reason=why))

    with every(seconds, try_to, name):
        yield


@contextmanager
def beating(beat: Callable[[], object], seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Call `beat` now and then while the body runs. One that fails is told, and the next tried."""
    with trying(seconds, beat, "heartbeat", "no sign of life could be written"):
        yield
