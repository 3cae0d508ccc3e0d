r"""Train small networks on the demo's pseudo-masks, and on the true masks of the same scenes.

    python jobs/train_student.py --output out/student
    python jobs/train_student.py --output out/student-short --short

Exit codes: 0 all were trained and scored, 2 a bad setting, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import ExitCode, run_command
from pipeline.student.study import StudentConfig, study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(StudentConfig, "train_student.py", __doc__, arguments, run, goes_on=False)


def run(config: StudentConfig) -> ExitCode:
    """Train, score and print the table."""
    study(config)
    print(Path(config.output, "metrics.md").read_text())
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
