"""Waiting for a storage that is not available, as the driver of a run does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline import storage
from pipeline.errors import StorageError, one_line

Result = TypeVar("Result")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


def patiently(work: Callable[[], Result], output: str, seconds: float) -> Result:
    """Do what reads or writes an output; again, after a while, where storage or network failed.

    Args:
        work: can be done again.
        output: for messages.
        seconds: after which that is no more tried.

    Raises:
        StorageError: it was in vain, or the trouble is not one that passes.
    """
    started, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            return work()
        except OSError as error:
            where = f"--output {storage.public(output)}: {one_line(error, kind=True)}"
            left = seconds - (time.monotonic() - started)
            if not storage.is_transient(error) or left <= 0:
                raise StorageError(f"{where}; the same command goes on") from error
            pause = min(pause, left)
            print(f"not available: {where}; tried again in {pause:.0f} s", flush=True)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
