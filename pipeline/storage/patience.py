"""Waiting for a storage that is not available."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ConfigError, StorageError, one_line
from pipeline.log import Event, say
from pipeline.storage.faults import is_transient

Result = TypeVar("Result")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
START_SECONDS = 60.0
"""What a command asks for at its start, it asks for so long: a name or a port may be wrong, and
somebody sits and waits."""


def patiently(work: Callable[[], Result], what: str, seconds: float) -> Result:
    """Do what reads or writes; again, after a while, where storage or network have failed.

    Args:
        work: can be done again.
        what: it needs, for messages.
        seconds: after which that is no more tried.

    Raises:
        StorageError: it was in vain, or the trouble is not one that passes.
        ConfigError: the same, where `work` has put it into the words of a setting.
    """
    started, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            return work()
        except (OSError, ConfigError) as error:
            is_said = isinstance(error, ConfigError)
            said = str(error) if is_said else f"{what}: {one_line(error, kind=True)}"
            left = seconds - (time.monotonic() - started)
            if not is_transient(error) or left <= 0:
                if is_said:
                    raise
                raise StorageError(f"{said}; the same command goes on") from error
            wait = min(pause * random.uniform(0.5, 1.0), left)
            line = f"not available: {said}; tried again in {wait:.0f} s"
            say(Event("not_available", line, "warning", reason=said))
            time.sleep(wait)
            pause = min(LONGEST_PAUSE, 2 * pause)
