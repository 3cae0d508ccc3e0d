"""Running shards on a Ray cluster. The only module that knows Ray.

Ray Data holds the pool of actors; a row is a shard. An actor writes and commits what it annotates
itself, and gives back no more than how that went: pixels and masks never travel.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, ModelError, one_line
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.run.progress import Meter, shown
from pipeline.run.tally import Register
from pipeline.run.worker import MakeWorker, Outcome, ShardWorker


class RayExecutor:
    """Tries shards in actors of a Ray cluster, each with a model of its own."""

    def __init__(self, config: RunConfig, ledger: Ledger, make_worker: MakeWorker) -> None:
        """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start one here."""
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        # A row is a shard, and may well take longer than Ray Data's patience (30 minutes).
        context.execution_no_progress_timeout_s = -1
        # A worker that dies loses its rows; the passes see that from the ledger.
        context.max_errored_blocks = -1
        self._config, self._ledger, self._make_worker = config, ledger, make_worker
        present = int(_cluster_resources().get("GPU", 0))
        device = config.engine.device
        self._on_gpu = device.startswith("cuda") or (device == "auto" and present > 0)
        self._workers = config.engine.workers or (present if self._on_gpu else 1)
        if not self._workers:
            raise ConfigError(
                f"--engine.device {device}: the cluster has no GPU yet; say with --engine.workers "
                "how many it is to have"
            )
        if not self._on_gpu:
            print("No GPU is used: the models run on the CPU", flush=True)

    def __call__(self, shards: Sequence[Shard], attempt: int, in_flight: int) -> list[Outcome]:
        """Try every shard, `in_flight` at once on each actor.

        Shards whose actor died have no outcome.

        Raises:
            ModelError: the model does not load.
        """
        workers = min(self._workers, len(shards))
        pool = _Pool()
        gpus = workers if self._on_gpu else 0
        meter = Meter(shards, pool.images, gpus)
        outcomes: list[Outcome] = []
        try:
            with shown(meter, self._config.engine.log_seconds):
                rows = self._dataset(shards, attempt, in_flight, workers, pool.register).iter_rows()
                for row in rows:
                    if row.pop("model_error"):
                        if outcomes:
                            continue  # others have loaded it: this shard is tried again elsewhere
                        raise ModelError(row["error"])
                    outcomes.append(Outcome(**row).told(self._ledger.report))
                    meter.add(outcomes[-1])
        finally:
            pool.dismiss()
        return outcomes

    def _dataset(
        self, shards: Sequence[Shard], attempt: int, in_flight: int, workers: int, register: Any
    ) -> Dataset:
        rows = [dataclasses.asdict(shard) for shard in shards]
        with warnings.catch_warnings():
            # Ray 2.60 has no other way to say max_task_retries, and the default retries for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _ShardActor,
                batch_size=1,
                fn_constructor_args=(
                    *(self._config, self._ledger, self._make_worker),
                    *(attempt, register),
                ),
                num_cpus=1,
                num_gpus=1 if self._on_gpu else 0,
                # Ray Data grows a pool slowly, by its use: it has to start at the size it needs.
                compute=ActorPoolStrategy(
                    min_size=workers,
                    max_size=workers,
                    max_tasks_in_flight_per_actor=in_flight,
                    max_concurrent_calls_per_actor=in_flight,
                    enable_true_multi_threading=in_flight > 1,
                ),
                max_restarts=-1,
                max_task_retries=0,
            )


class _Pool:
    """The actors of a pass, as they report to an actor beside the driver.

    No result depends on it: its loss costs fresh numbers, and the care for what is left over.
    """

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(Register).options(num_cpus=0, scheduling_strategy=here)
        self.register: Any = actor.remote()
        self._images = 0

    def images(self) -> int:
        """How many are done, by the newest number there is."""
        try:
            self._images = int(ray.get(self.register.total.remote(), timeout=10))
        except RayError:
            return self._images
        return self._images

    def dismiss(self) -> None:
        """End the actors, so that the next pass finds their CPUs and GPUs free.

        Ray Data lets go of them. But errors of actors that died hold on, in reference cycles, to
        those that Ray has started in their place: the next pass would wait for them for ever.
        """
        try:
            left = ray.get(self.register.actors.remote(), timeout=60)
        except RayError:
            return
        for actor in left:
            ray.kill(actor)


class _ShardActor:
    """What Ray Data runs in each actor: one shard in, one outcome out."""

    def __init__(
        self,
        config: RunConfig,
        ledger: Ledger,
        make_worker: MakeWorker,
        attempt: int,
        register: Any,
    ) -> None:
        self._attempt, self._register = attempt, register
        this = ray.get_runtime_context()
        register.join.remote(this.get_actor_id(), this.current_actor)
        # Ray would start the actor again, a few times, and say no more than that it died.
        self._worker: ShardWorker | None = None
        self._error = ""
        self._told = False
        try:
            ledger.check_owner(ledger.fingerprint)
            if not ledger.is_here():
                raise ConfigError(
                    f"--output {config.output}: a worker on {platform.node()} does not find the "
                    "run there; it has to be a place that all nodes share"
                )
            self._worker = make_worker(config)
        except Exception as error:
            if not isinstance(error, ModelError | ValueError):
                traceback.print_exc()
            self._error = one_line(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        row = {name: values[0] for name, values in batch.items()}
        location, uri, modified = (str(row[name]) for name in ("location", "uri", "modified"))
        shard = Shard(location, uri, int(row["size"]), modified)
        if self._worker is None:
            if self._told:
                os._exit(1)  # to be started afresh, instead of failing what others could do
            self._told = True
            outcome = Outcome(shard.name, shard.size, self._error)
        else:
            outcome = self._worker.try_shard(shard, self._attempt, self._register.add.remote)
        columns = dataclasses.asdict(outcome) | {"model_error": self._worker is None}
        return {name: [value] for name, value in columns.items()}


def _cluster_resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources
