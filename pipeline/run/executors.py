"""The choice of what runs the shards."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pipeline.config import RunConfig
from pipeline.outputs.ledger import Ledger
from pipeline.run.queue import ShardQueue
from pipeline.run.worker import MakeWorker


@runtime_checkable
class Executor(Protocol):
    """Has shards tried by workers, which it keeps until it is closed."""

    def run(self, queue: ShardQueue) -> None:
        """Try what is in the queue until nothing is left of it.

        Raises:
            ModelError: the model does not load.
            TakenOver: the output belongs to another run now.
        """

    def close(self) -> None:
        """End the workers."""


def make_executor(config: RunConfig, ledger: Ledger, make_worker: MakeWorker) -> Executor:
    """What `--engine.executor` names. Each is imported alone, for Ray takes seconds to load.

    Args:
        config: of the run.
        ledger: of its output, opened.
        make_worker: called in every process that does shards; has to travel there.
    """
    executor: Executor
    if config.engine.executor == "local":
        from pipeline.run.local_executor import LocalExecutor

        executor = LocalExecutor(config, make_worker)
    else:
        from pipeline.run.ray_executor import RayExecutor

        executor = RayExecutor(config, ledger, make_worker)
    return executor
