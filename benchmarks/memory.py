"""Memory of a process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has had resident.

    Linux hands a program the `ru_maxrss` of the process that started it, so that a small one seems
    as large as its parent: there, it is the mark of the program itself.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text().splitlines()
    (mark,) = (line for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(mark.split()[1])
