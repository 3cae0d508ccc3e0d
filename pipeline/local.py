"""Running a job's shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import AnnotateConfig
from pipeline.progress import progress_lines
from pipeline.shards import Shard
from pipeline.worker import Worker


def run_local(config: AnnotateConfig, shards: Sequence[Shard]) -> None:
    """Annotate every shard; one that fails is recorded in the ledger, and the next one follows.

    Raises:
        ModelError: the model does not load.
    """
    worker = Worker(config)
    images = 0
    done = 0

    def count(more: int) -> None:
        nonlocal images
        images += more

    with progress_lines(lambda: images, lambda: done, len(shards), config.engine.log_seconds):
        for shard in shards:
            worker.try_shard(shard, count)
            done += 1
