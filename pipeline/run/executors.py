"""The choice of what runs the shards."""

from __future__ import annotations

import signal

from pipeline.cli import stop_when_terminated
from pipeline.config import RunConfig
from pipeline.outputs.ledger import Ledger
from pipeline.run.passes import Execute
from pipeline.run.worker import MakeWorker


def make_executor(config: RunConfig, ledger: Ledger, make_worker: MakeWorker) -> Execute:
    """What `--engine.executor` names. Each is imported alone, for Ray takes seconds to load.

    Args:
        config: of the run.
        ledger: of its output, opened.
        make_worker: called in every process that does shards; has to travel there.
    """
    executor: Execute
    if config.engine.executor == "local":
        from pipeline.run.local_executor import LocalExecutor

        executor = LocalExecutor(config, make_worker, ledger.report)
    else:
        from pipeline.run.ray_executor import RayExecutor

        try:
            executor = RayExecutor(config, ledger, make_worker)
        except SystemExit as stop:
            if stop.code == signal.SIGTERM:  # while it starts, Ray's handler is in charge
                raise KeyboardInterrupt from stop
            raise
        stop_when_terminated()  # instead of Ray, which sets its handler when it starts
    return executor
