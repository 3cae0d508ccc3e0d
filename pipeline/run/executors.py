"""The choice of what runs the shards."""

from __future__ import annotations

import signal
import sys

from pipeline.config import AnnotateConfig
from pipeline.run.passes import Run
from pipeline.run.worker import MakeWorker, Worker

STOPPED = 143
"""Exit code of a run that was told to stop, as shells have it for SIGTERM."""


def make_executor(config: AnnotateConfig, make_worker: MakeWorker = Worker) -> Run:
    """What `--engine.executor` names. Each is imported alone, for Ray takes seconds to load.

    From here on SIGTERM ends the process with `STOPPED`.
    """
    _exit_when_terminated()
    executor: Run
    if config.engine.executor == "local":
        from pipeline.run.local_executor import LocalExecutor

        executor = LocalExecutor(config, make_worker)
    else:
        from pipeline.run.ray_executor import RayExecutor

        try:
            executor = RayExecutor(config, make_worker)
        except SystemExit as stop:
            if stop.code == signal.SIGTERM:  # while it starts, Ray's handler is in charge
                sys.exit(STOPPED)
            raise
        _exit_when_terminated()  # instead of Ray, which sets its handler when it starts
    return executor


def _exit_when_terminated() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
