"""Write one page about an annotation run: what it made, how it is distributed, how it looks.

    python jobs/report.py --predictions out --output out

Exit codes: 0 done, 2 a bad setting, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from pipeline import storage
from pipeline.cli import ExitCode, run_command
from pipeline.report.build import PAGE, write_report
from pipeline.report.config import ReportConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(ReportConfig, "report.py", __doc__, arguments, run, goes_on=False)


def run(config: ReportConfig) -> ExitCode:
    """Write the page, and say what it has no pictures of."""
    torch.set_num_threads(1)  # the maps are too small to share
    for note in write_report(config).notes:
        print(note)
    print(f"Look at {storage.shown(storage.join(config.output, PAGE))}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
