"""Makes drivers of runs by fork: what the command imports, which takes seconds, is there already.

Reads jobs from its input, a line of JSON each. A driver is the real command with a stand-in for the
worker, a session leader with output of its own, and ends as the command does.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray

from jobs.annotate import main as annotate
from pipeline.run import annotation
from pipeline.run.local_executor import LocalExecutor  # noqa: F401  # likewise
from pipeline.run.ray_executor import RayExecutor  # noqa: F401  # likewise
from pipeline.storage import web
from tests.chaos.stand_ins import StandIn, Trouble


def main() -> int:
    """Fork a driver for every job, until the input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who attend are not waited for
    gc.freeze()  # else every fork copies all objects when it looks for dead ones
    print("ready", flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            return attend(json.loads(line))
    return 0


def attend(job: dict[str, Any]) -> int:
    """Fork the driver once more, and take down its number and its end; both return from here."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder = Path(job["folder"])
    pid = os.fork()
    if pid == 0:
        return drive(job, folder)
    _write(folder / "pid", pid)
    _, status = os.waitpid(pid, 0)
    _write(folder / "code", os.waitstatus_to_exitcode(status))
    os._exit(0)


def drive(job: dict[str, Any], folder: Path) -> int:
    """Run the command; its exit code."""
    os.setsid()
    output = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(stream, target)
    os.environ.update(job["environment"])
    make_worker = partial(StandIn, trouble=Trouble(**job["trouble"]), folder=job["work"])
    with (
        patch.object(annotation, "Worker", make_worker),
        patch.object(web, "PATIENCE", job["patience"] or web.PATIENCE),
    ):
        code = annotate(job["arguments"])
    if not ray.is_initialized():  # there is nothing to end, but a second's worth of objects
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _write(path: Path, number: int) -> None:
    """All at once: somebody waits for it."""
    path.with_suffix(".part").write_text(str(number))
    path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    sys.exit(main())
