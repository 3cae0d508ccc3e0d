"""One shard in, one committed pair of tables out. Knows nothing of Ray."""

from __future__ import annotations

import os
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch

from pipeline import storage
from pipeline.config import AnnotateConfig, RunConfig
from pipeline.errors import ShardError, Stopped, TooManyRejects
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.samples import Rejected, Sample, SampleReader
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample, read_samples
from pipeline.models.explain import PromptExplainer, SampleExplainer
from pipeline.outputs.annotations import Annotated
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import make_commit
from pipeline.outputs.tables import ShardTables
from pipeline.run.annotator import Annotator
from pipeline.run.ordering import map_ahead
from pipeline.run.watchdog import Watchdog

DECODE_THREADS = 2
BATCHES_AT_ONCE = 2
"""Of one shard: while masks are made of the maps of one, the model has the next."""

Batch = list[Sample | Rejected]


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a shard ended.

    Attributes:
        shard: its name.
        size: its bytes.
        error: why it failed; empty when it is committed.
        final: whether another attempt is pointless.
    """

    shard: str
    size: int
    error: str = ""
    final: bool = False


class ShardWorker(ABC):
    """Does shard after shard. What goes wrong with one is told, and leaves the others alone.

    Several threads may each do a shard at once.
    """

    def __init__(self, config: RunConfig) -> None:
        """Watch over the shards as `config.engine` says, and commit them in `config.output`."""
        self.ledger = Ledger(config.output)
        self.watchdog = Watchdog(config.engine.stall_seconds)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Leave the shards that are being done, each at its next batch."""
        self._stopped.set()

    def try_shard(self, shard: Shard, attempt: int, on_images: Callable[[int], object]) -> Outcome:
        """Do and commit a shard; whatever goes wrong is in the outcome."""
        try:
            with self.watchdog.watch() as moved_on:

                def alive() -> None:
                    moved_on()
                    if self._stopped.is_set():
                        raise Stopped("stopped")

                self.do_shard(shard, attempt, on_images, alive)
        except (ShardError, TooManyRejects, Stopped) as error:
            final = isinstance(error, TooManyRejects)
            return Outcome(shard.name, shard.size, str(error), final)
        except Exception as error:  # whatever it is, it must not take other shards with it
            traceback.print_exc()
            self._leave_if_broken()
            return Outcome(shard.name, shard.size, f"{type(error).__name__}: {error}")
        return Outcome(shard.name, shard.size)

    def _leave_if_broken(self) -> None:
        """End the process if its GPU is: it would fail every other shard as well, in no time."""
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"the GPU no longer works, this worker ends: {error}", flush=True)
            os._exit(1)

    @abstractmethod
    def do_shard(
        self,
        shard: Shard,
        attempt: int,
        on_images: Callable[[int], object],
        alive: Callable[[], None],
    ) -> None:
        """Do every sample of the shard and commit it; what it raises is the reason why not.

        Args:
            shard: what to read.
            attempt: which one this is, from 1.
            on_images: told how many more samples are done, after every batch.
            alive: to be called after every batch, and whenever waiting is no standstill. Raises
                `Stopped` when the worker is to stop.
        """


class Worker(ShardWorker):
    """A model, and what it takes to annotate shard after shard with it."""

    def __init__(
        self,
        config: AnnotateConfig,
        make_explainer: Callable[[AnnotateConfig], SampleExplainer] = PromptExplainer,
    ) -> None:
        """Load the model; see `PromptExplainer` for what may go wrong."""
        torch.set_num_threads(config.engine.cpu_threads())
        super().__init__(config)
        self.config = config
        self.explain = make_explainer(config)
        self.annotator = Annotator(self.explain, config.mask)
        self._shards = count()
        vectors = config.prompts.source == "embeddings"
        self.read_prompts = PromptReader(
            config.prompts, self.explain.embed_width if vectors else None
        )

    def do_shard(
        self,
        shard: Shard,
        attempt: int,
        on_images: Callable[[int], object],
        alive: Callable[[], None],
    ) -> None:
        """Annotate every sample of the shard, write its tables and commit it.

        Raises:
            ShardError: the shard cannot be read to its end; nothing was written.
            TooManyRejects: nothing was written.
            OSError: reading or writing failed; nothing was committed.
        """
        started = time.monotonic()
        tables = ShardTables(shard.name, self.config)
        incomplete = ""
        try:
            for batch, found in self._annotated(shard, alive):
                _add(batch, found, tables)
                on_images(len(batch))
                alive()
        except ShardError as error:
            # What the network cut short may well be whole the next time.
            if not self.config.salvage or attempt < self.config.engine.max_attempts:
                raise
            incomplete = str(error)
        self._check_rejects(tables)
        if incomplete and not tables.images:
            raise ShardError(f"nothing to salvage: {incomplete}")
        files = tables.files()
        commit = make_commit(
            shard,
            self.config.fingerprint(),
            tables.counts(),
            files,
            seconds=time.monotonic() - started,
            attempt=attempt,
            degraded=tables.degraded,
            incomplete=incomplete,
        )
        self.ledger.commit(commit, files)

    def _annotated(
        self, shard: Shard, alive: Callable[[], None]
    ) -> Iterator[tuple[Batch, list[Annotated]]]:
        """Every batch of the shard in order, with what was found in those not rejected.

        The shard that was begun first has the model first. So shards in flight do not end together,
        and while one is being finished and the next opened, another has batches ready.

        Raises:
            ShardError: after the last batch that could be read.
        """
        begun = next(self._shards)

        def annotate(numbered: tuple[int, Batch]) -> tuple[Batch, list[Annotated]]:
            number, batch = numbered
            samples = [sample for sample in batch if isinstance(sample, Sample)]
            return batch, self.annotator.annotate(samples, (begun, number), alive)

        with ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="annotate") as pool:
            batches = enumerate(self._batches(shard))
            yield from map_ahead(pool, annotate, batches, BATCHES_AT_ONCE - 1)

    def _check_rejects(self, tables: ShardTables) -> None:
        counts = tables.counts()
        rejected, samples = sum(counts["rejects"].values()), counts["samples"]
        if rejected > self.config.max_reject_fraction * samples:
            reasons = ", ".join(f"{n} {reason}" for reason, n in counts["rejects"].items())
            raise TooManyRejects(
                f"{rejected} of {samples} samples rejected ({reasons}; the first: "
                f"{tables.first_reject()}), more than --max_reject_fraction "
                f"{self.config.max_reject_fraction}"
            )

    def _batches(self, shard: Shard) -> Iterator[Batch]:
        """The samples of a shard in order, cut after every `batch_size` that can be annotated.

        The cuts depend on the shard's contents only: a batch decides about the last bits of a
        float, and an interrupted run has to end in the same bytes as one that was not.

        Raises:
            ShardError: after the last batch that could be read.
        """
        batch: Batch = []
        good = 0
        error: ShardError | None = None
        with storage.open_read(shard.location) as stream:
            raws = islice(
                read_samples(stream, self.config.max_sample_bytes), self.config.limit_samples
            )
            try:
                for sample in self._decoded(raws):
                    batch.append(sample)
                    good += isinstance(sample, Sample)
                    if good == self.config.engine.batch_size:
                        yield batch
                        batch, good = [], 0
            except ShardError as caught:
                error = caught
        if batch:
            yield batch
        if error:
            raise error

    def _decoded(self, raws: Iterable[RawSample]) -> Iterator[Sample | Rejected]:
        """Decode in threads, a bounded number of samples ahead, in order.

        Raises:
            ShardError: after the last sample that could be read.
        """
        reader = SampleReader(self.read_prompts, self.config.max_pixels, self.explain.squash)
        admitted = ((raw, reader.admit(raw)) for raw in raws)

        def read(pair: tuple[RawSample, Rejected | None]) -> Sample | Rejected:
            raw, verdict = pair
            return verdict or reader(raw)

        with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as pool:
            yield from map_ahead(pool, read, admitted, 2 * self.config.engine.batch_size)


MakeWorker = Callable[[Any], ShardWorker]
"""A worker for the settings of a run, `RunConfig` or what extends it."""


def _add(batch: Batch, found: list[Annotated], tables: ShardTables) -> None:
    annotated = iter(found)
    for sample in batch:
        if isinstance(sample, Rejected):
            tables.add_rejected(sample)
        else:
            tables.add(sample, next(annotated))
