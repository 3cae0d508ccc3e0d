"""What a command prints: lines for people, or one JSON object for every line.

A line that is worth more to a machine than its text is an `Event`. Everything else that is printed
while lines are objects, by libraries and by workers elsewhere too, becomes one as well.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any, Literal, Protocol, TextIO, cast, runtime_checkable

Level = Literal["info", "warning", "error"]
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WORKERS = re.compile(r"\((?P<actor>[^()]*?) ?pid=(?P<pid>\d+)(?:, ip=(?P<ip>[^)]+))?\) ")
"""What Ray puts before a line that one of its workers has printed."""


@runtime_checkable
class Writable(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object:
        """Write it."""

    def flush(self) -> object:
        """Have it written at once."""


class Event(str):
    """A line for people that machines can take apart.

    Attributes:
        name: what has happened, one word.
        level: how bad it is.
        fields: what it is about, as JSON values.
    """

    name: str
    level: Level
    fields: dict[str, Any]

    def __new__(cls, name: str, line: str, level: Level = "info", **fields: Any) -> Event:
        """The line, and what it says."""
        event = super().__new__(cls, line)
        event.name, event.level, event.fields = name, level, fields
        return event


def say(line: str, stream: Writable | None = None) -> None:
    """Print a line at once. A log that takes none, say on a full disk, is no reason to stop.

    Args:
        line: text, or an `Event`.
        stream: where to, stdout without it.
    """
    to: Writable = stream or sys.stdout
    with suppress(OSError):
        if isinstance(to, _Objects):
            to.put(line)
        else:
            print(line, file=to, flush=True)


def as_objects() -> bool:
    """Whether what is printed becomes objects."""
    return isinstance(sys.stdout, _Objects)


@contextmanager
def restored() -> Iterator[None]:
    """Whatever `use` has been called with in the body ends with it."""
    before = sys.stdout, sys.stderr
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Objects):
                stream.finish()
        sys.stdout, sys.stderr = before


def use(form: Literal["text", "json"]) -> None:
    """From here on print lines as they are, or as objects; within `restored`."""
    if form == "json" and not as_objects():
        lock = threading.RLock()  # of both, which often go to one file
        sys.stdout = cast(TextIO, _Objects(sys.stdout, "info", lock))
        sys.stderr = cast(TextIO, _Objects(sys.stderr, "warning", lock))


def as_line(line: str, level: Level = "info") -> str:
    """A line as an object, without the end of the line."""
    event = line if isinstance(line, Event) else _taken_apart(line, level)
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    values = {"time": now, "level": event.level, "event": event.name, "message": str(event)}
    return json.dumps(values | event.fields, ensure_ascii=False, default=str)


def _taken_apart(line: str, level: Level) -> Event:
    """A line that somebody has printed, and which worker, where Ray says so."""
    text = COLOURS.sub("", line)
    worker = WORKERS.match(text)
    if worker is None:
        return Event("output", text, level)
    fields = {name: value for name, value in worker.groupdict().items() if value}
    fields["pid"] = int(fields["pid"])
    return Event("worker", text[worker.end() :], level, **fields)


class _Objects(io.TextIOBase):
    """A stream that makes an object of every line that is written to it."""

    def __init__(self, to: Any, level: Level, lock: Any) -> None:
        self._to, self._level, self._lock = to, level, lock
        self._begun: dict[int, str] = {}  # by thread, for two may be in the middle of a line

    def write(self, text: str) -> int:
        with self._lock:
            *lines, rest = (self._begun.pop(threading.get_ident(), "") + text).split("\n")
            for line in lines:
                if line.strip():
                    self.put(line.rpartition("\r")[2] or line)
            if rest:
                self._begun[threading.get_ident()] = rest
        return len(text)

    def put(self, line: str) -> None:
        """Print one object."""
        with self._lock:
            self._to.write(as_line(line, self._level) + "\n")
            self._to.flush()

    def finish(self) -> None:
        """Print what was begun and not ended."""
        with self._lock:
            for line in self._begun.values():
                self.put(line)
            self._begun.clear()

    def flush(self) -> None:
        self._to.flush()

    def fileno(self) -> int:
        number: int = self._to.fileno()
        return number

    def writable(self) -> bool:
        return True
