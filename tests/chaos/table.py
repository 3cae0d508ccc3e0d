"""The table of what was done, as `docs/reliability.md` has it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.kinds import KINDS
from tests.chaos.suite import Record

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN = "<!-- table of tests/chaos, written by python -m tests.chaos --table -->"
END = "<!-- end of the table -->"


def table(records: Iterable[Record]) -> str:
    """Kind × runs × median recovery, in Markdown, and the hours; what failed is not kept quiet."""
    of_kind: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        of_kind[record.kind].append(record)
    lines = [
        "| fault | runs | ended well | median recovery |",
        "|---|---|---|---|",
    ]
    for name in (kind for kind in KINDS if kind in of_kind):
        done = [record for record in of_kind[name] if record.outcome != "skipped"]
        well = [record for record in done if record.outcome == "well"]
        recoveries = [record.recovery for record in well if record.recovery is not None]
        median = f"{statistics.median(recoveries):.1f} s" if recoveries else ""
        lines.append(f"| {name} | {len(done)} | {len(well)} | {median} |")
    done = [r for found in of_kind.values() for r in found if r.outcome != "skipped"]
    well = [record for record in done if record.outcome == "well"]
    hours = sum(record.seconds for record in done) / 3600
    counts = f"| **{len(of_kind)} kinds** | **{len(done)}** | **{len(well)}** |"
    lines.append(f"{counts} {hours:.1f} h together |")
    return "\n".join(lines)


def write(records: Iterable[Record], page: Path = PAGE) -> None:
    """Put the table between its marks in the page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: has not the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n{table(records)}\n{END}{after}")
