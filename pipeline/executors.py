"""The choice of what runs the shards."""

from __future__ import annotations

import signal
import sys

from pipeline.config import AnnotateConfig
from pipeline.passes import Run
from pipeline.worker import MakeWorker, Worker


def make_executor(config: AnnotateConfig, make_worker: MakeWorker = Worker) -> Run:
    """What `--engine.executor` names. Each is imported alone, for Ray takes seconds to load."""
    executor: Run
    if config.engine.executor == "local":
        from pipeline.local import LocalExecutor

        executor = LocalExecutor(config, make_worker)
    else:
        from pipeline.engine import RayExecutor

        executor = RayExecutor(config, make_worker)
    # Ray has handlers of its own, and sets them when it starts: this one has to come after.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return executor
