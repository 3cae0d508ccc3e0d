"""Doing faults one after the other, each recorded in a line of a file as soon as it is over."""

from __future__ import annotations

import json
import math
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos import (  # noqa: F401  # each registers its kinds
    beliefs,
    disks,
    drivers,
    inputs,
    loading,
    nodes,
    outages,
    ownership,
    s3,
    web,
    workers,
)
from tests.chaos.cases import Bench, Case
from tests.chaos.kinds import KINDS, Kind, Skipped

USUAL = 8
"""Faults of each kind in a full run."""


@dataclass(frozen=True)
class Record:
    """What became of a fault.

    Attributes:
        kind: its name.
        number: which of its kind, from 0.
        seed: of the suite.
        outcome: `well`, `failed` or `skipped`.
        seconds: that all of it took.
        recovery: seconds from the fault until everything was well again.
        seen: the lines that people must see.
        error: why it failed or was skipped.
    """

    kind: str
    number: int
    seed: int
    outcome: str
    seconds: float
    recovery: float | None = None
    seen: list[str] = field(default_factory=list)
    error: str = ""


def read(results: Path) -> list[Record]:
    """What was recorded so far; a line that was cut by a kill is as good as none."""
    records = []
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            records.append(Record(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return records


def due(
    kinds: Iterable[Kind], per_kind: int, seed: int, done: Iterable[Record]
) -> Iterator[tuple[Kind, int]]:
    """The faults that are not recorded yet: of all kinds in turn, so that each comes soon."""
    known = {(record.kind, record.number) for record in done if record.seed == seed}
    times = {
        kind.name: per_kind if kind.repeats is None else math.ceil(kind.repeats * per_kind / USUAL)
        for kind in kinds
    }
    for number in range(max(times.values())):
        for kind in kinds:
            if number < times[kind.name] and (kind.name, number) not in known:
                yield kind, number


def do(kind: Kind, number: int, seed: int, bench: Bench) -> Record:
    """Make one fault happen."""
    draw = random.Random(f"{seed}/{kind.name}/{number}")
    started = time.monotonic()
    work = bench.folder / f"{list(KINDS).index(kind.name):02}-{number:02}"
    case = Case(kind.name, draw, work, bench)
    outcome, error = "well", ""
    try:
        try:
            kind.happens(case)
        finally:
            case.clear_away()
    except Skipped as reason:
        outcome, error = "skipped", str(reason)
    except Exception:  # it is recorded, and the others go on
        outcome, error = "failed", traceback.format_exc()
    if outcome == "well" and not (case.seen and case.recovery is not None):
        outcome, error = "failed", "silent: nothing was asserted of what people see"
    return Record(
        kind.name, number, seed, outcome, round(time.monotonic() - started, 2),
        None if case.recovery is None else round(case.recovery, 2), case.seen, error,
    )  # fmt: skip


def append(results: Path, record: Record) -> None:
    """Record it at the end of the file, on a line of its own even if the last one was cut."""
    before = results.read_bytes() if results.exists() else b""
    with results.open("a") as file:
        if before and not before.endswith(b"\n"):
            file.write("\n")
        file.write(json.dumps(asdict(record)) + "\n")


def totals(records: Iterable[Record]) -> str:
    """How many of each outcome."""
    found = Counter(record.outcome for record in records)
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items()))
