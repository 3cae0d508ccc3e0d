"""What an export says at its end: what was taken of each class, and what each filter dropped."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from pipeline.export.state import Totals

SHOWN = 20
"""Classes; `export/state.json` has all of them."""


def print_totals(totals: Totals, output: str) -> None:
    """Print a table of classes by settings, and what the format cannot say."""
    settings = list(dict.fromkeys(setting for setting, _ in totals.dropped))
    found = Counter(totals.taken)
    for (_, name), count in totals.dropped.items():
        found[name] += count
    shown = [name for name, _ in sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))]
    table = Table()
    table.add_column("class")
    for heading in ("taken", *(f"dropped: {setting}" for setting in settings)):
        table.add_column(heading, justify="right")
    groups = [(name, [name]) for name in shown[:SHOWN]]
    if rest := shown[SHOWN:]:
        groups.append((f"{len(rest):,} others", rest))
    for title, names in [*groups, ("all", shown)]:
        dropped = (sum(totals.dropped[setting, name] for name in names) for setting in settings)
        taken = sum(totals.taken[name] for name in names)
        table.add_row(title, *(f"{count:,}" for count in (taken, *dropped)))
    print(f"{totals.images:,} images and {totals.taken.total():,} objects in {output}")
    Console(highlight=False).print(table)
    for what, count in sorted(totals.lost.items()):
        print(f"{what}: {count:,}")
