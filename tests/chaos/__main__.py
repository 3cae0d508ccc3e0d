r"""The chaos suite: faults at random moments, and the same command to the end.

    python -m tests.chaos --results chaos.jsonl --per_kind 8 --seed 1
    python -m tests.chaos --results chaos.jsonl --table

Records one line per fault; what is recorded is not done again. Exit code 1: a fault ended badly.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import suite, table
from tests.chaos.cases import Bench
from tests.chaos.kinds import KINDS


def main() -> int:
    """Do what is due, and say how it went."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or its cluster would go on
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; gone on with")
    parser.add_argument("--per_kind", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="", help="names or parts of them, with commas between")
    parser.add_argument("--ray", choices=["yes", "no"], help="only kinds on Ray, or none of them")
    parser.add_argument("--table", action="store_true", help="write the table, do nothing else")
    options = parser.parse_args()
    if options.table:
        table.write(suite.read(options.results))
        return 0
    parts = options.kinds.split(",")
    kinds = [kind for kind in KINDS.values() if any(part in kind.name for part in parts)]
    if options.ray:
        kinds = [kind for kind in kinds if kind.on_ray == (options.ray == "yes")]
    if not kinds:
        parser.error(f"--kinds {options.kinds}: none of {', '.join(KINDS)}")
    due = list(suite.due(kinds, options.per_kind, options.seed, suite.read(options.results)))
    print(f"{len(kinds)} kinds, {len(due)} faults to do", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Bench(Path(folder)) as bench:
        for position, (kind, number) in enumerate(due, 1):
            record = suite.do(kind, number, options.seed, bench)
            suite.append(options.results, record)
            print(
                f"{position} of {len(due)}: {record.outcome}, {record.seconds:.1f} s: {kind.name}, "
                f"number {number}{chr(10) if record.error else ''}{record.error}",
                flush=True,
            )
    records = suite.read(options.results)
    print(suite.totals(records))
    return int(any(record.outcome == "failed" for record in records))


if __name__ == "__main__":
    sys.exit(main())
