"""Locks among the processes of one machine."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import ModelError

LIMIT = 30 * 60.0
"""Seconds that a process waits for another: more than the largest weights take to come and load."""


@contextmanager
def alone(name: str, doing: str) -> Iterator[None]:
    """Have one process of this machine, and this user, at a time do something.

    The lock lies on the machine's own disk: a home directory may be that of a whole cluster, where
    a lock makes all its machines wait for one, and may be none.

    Args:
        name: of the lock, as a file name.
        doing: what the others then wait for, for people.

    Raises:
        ModelError: another process has it for too long, or it cannot be had.
    """
    try:
        path = _folder() / f"{name}.lock"
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is {doing} ({path})", flush=True)
            lock.acquire(timeout=LIMIT)
    except Timeout as error:
        raise ModelError(
            f"{doing}: another process has held {path} for {LIMIT / 60:g} minutes; end it "
            "(fuser or lsof say which one it is), and run this again"
        ) from error
    except OSError as error:
        raise ModelError(f"{doing}: no lock can be had: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _folder() -> Path:
    """Where this user's locks lie; nobody else may put anything there."""
    folder = Path(tempfile.gettempdir()) / f"legrad-annotate-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's; set TMPDIR to a folder of your own")
    return folder
