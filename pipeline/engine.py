"""Running a job's shards on a Ray cluster. The only module that knows Ray.

Ray Data holds the pool of actors; a row is a shard. An actor writes and commits what it annotates
itself, and gives back no more than whether it worked: pixels and masks never travel.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from pipeline.config import AnnotateConfig
from pipeline.models import ModelError
from pipeline.progress import progress_lines
from pipeline.shards import Shard
from pipeline.worker import Worker


class _Tally:
    """Counts the images that all actors have done."""

    def __init__(self) -> None:
        self.images = 0

    def add(self, images: int) -> None:
        self.images += images

    def total(self) -> int:
        return self.images


class _ShardActor:
    """What Ray Data runs in each actor: one row in, one row out."""

    def __init__(self, config: AnnotateConfig, tally: Any) -> None:
        self.tally = tally
        # An exception here would make Ray start the actor again, and again. It is told instead.
        self.worker: Worker | None = None
        self.error = ""
        try:
            self.worker = Worker(config)
        except ModelError as error:
            self.error = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.worker is None:
            return {"model_error": [self.error]}
        row = {name: values[0] for name, values in batch.items()}
        shard = Shard(str(row["location"]), str(row["uri"]), int(row["size"]))
        self.worker.try_shard(shard, self.tally.add.remote)
        return {"model_error": [""]}


def run_on_ray(config: AnnotateConfig, shards: Sequence[Shard]) -> None:
    """Annotate every shard on the cluster of the job, or on a local one where there is none.

    Raises:
        ModelError: the model does not load.
    """
    _connect()
    gpus = int(_resources().get("GPU", 0))
    workers = min(config.engine.workers or gpus or 1, len(shards))
    tally: Any = ray.remote(num_cpus=0)(_Tally).remote()
    rows = [{"location": s.location, "uri": s.uri, "size": s.size} for s in shards]
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to say max_task_retries, and the default retries for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _ShardActor,
            batch_size=1,
            fn_constructor_args=(config, tally),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            # Ray Data grows a pool slowly, by its use: it has to start at the size it needs.
            compute=ActorPoolStrategy(min_size=workers, max_size=workers),
            max_restarts=-1,
            max_task_retries=0,
        )
    done = 0
    with progress_lines(
        lambda: ray.get(tally.total.remote()), lambda: done, len(shards), config.engine.log_seconds
    ):
        for row in results.iter_rows():
            if row["model_error"]:
                raise ModelError(row["model_error"])
            done += 1


def _resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def _connect() -> None:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start one here."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # A shard may well take longer than Ray Data's patience without a finished row (30 minutes).
    context.execution_no_progress_timeout_s = -1
