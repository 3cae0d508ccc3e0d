"""Running shards in this process, a few at once."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipeline.config import RunConfig
from pipeline.run.progress import Meter, shown
from pipeline.run.queue import Outcome, ShardQueue, Trial
from pipeline.run.tally import Tally
from pipeline.run.worker import MakeWorker

LOOK_SECONDS = 0.2
"""Between two looks at what has become due."""


class LocalExecutor:
    """Tries shards in threads of this process, all with one model."""

    def __init__(self, config: RunConfig, make_worker: MakeWorker) -> None:
        """Make the worker, and raise what that raises."""
        self._since = time.monotonic()
        self._worker = make_worker(config)
        self._engine = config.engine

    def run(self, queue: ShardQueue) -> None:
        """Try what is in the queue until nothing is left of it."""
        tally = Tally()
        flying: dict[Future[Outcome], Trial] = {}
        gpus = int(self._engine.takes_gpu_here())
        meter = Meter(queue, tally.total, str)
        work, unit = queue.work, "GPU" if gpus else "worker"
        in_flight = self._engine.shards_in_flight
        showing = shown(meter, self._engine.log_seconds)
        with showing, work.returned(), ThreadPoolExecutor(in_flight) as pool:
            work.hold(1, unit, self._since)
            try:
                while not queue.is_over:
                    for trial in queue.fill(flying.values(), in_flight):
                        flying[pool.submit(self._worker.try_shard, trial, tally.add)] = trial
                    if not flying:
                        time.sleep(LOOK_SECONDS)
                    ended, _ = wait(flying, LOOK_SECONDS, FIRST_COMPLETED)
                    for future in ended:
                        queue.end(flying.pop(future), future.result())
            except BaseException:  # a run that is stopped leaves the rest to the next one
                self._worker.stop()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
                self._since = time.monotonic()

    def close(self) -> None:
        """Nothing is left to be ended."""
