"""Running shards in this process, a few at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.run.progress import Meter, shown
from pipeline.run.tally import Tally
from pipeline.run.worker import MakeWorker, Outcome


class LocalExecutor:
    """Tries shards in threads of this process, all with one model."""

    def __init__(
        self,
        config: RunConfig,
        make_worker: MakeWorker,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Make the worker, and raise what that raises.

        Args:
            config: of the run.
            make_worker: makes it.
            report: gets the record of every shard that is committed.
        """
        self._worker, self._report = make_worker(config), report
        self._log_seconds = config.engine.log_seconds

    def __call__(self, shards: Sequence[Shard], attempt: int, in_flight: int) -> list[Outcome]:
        """Try every shard, `in_flight` at once."""
        tally = Tally()
        meter = Meter(shards, tally.total, gpus=0)
        outcomes = []
        with shown(meter, self._log_seconds), ThreadPoolExecutor(in_flight) as pool:
            futures = [pool.submit(self._try, shard, attempt, tally.add) for shard in shards]
            try:
                for future in as_completed(futures):
                    outcomes.append(future.result())
                    meter.add(outcomes[-1])
            except BaseException:  # a run that is stopped leaves the rest to the next one
                self._worker.stop()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
        return outcomes

    def _try(self, shard: Shard, attempt: int, on_images: Callable[[int], object]) -> Outcome:
        return self._worker.try_shard(shard, attempt, on_images).told(self._report)
