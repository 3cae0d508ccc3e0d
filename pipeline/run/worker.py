"""One shard in, one committed pair of tables out. Knows nothing of Ray."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import torch

from pipeline import storage
from pipeline.config import AnnotateConfig, RunConfig
from pipeline.errors import (
    NotWritten,
    ShardError,
    Stopped,
    TakenOver,
    TooManyRejects,
    one_line,
    print_traceback,
)
from pipeline.inputs.calibration import load_calibration
from pipeline.inputs.look_ahead import map_ahead
from pipeline.inputs.prompts import Prompt, PromptReader
from pipeline.inputs.reader import Read, ShardReader, in_batches
from pipeline.inputs.samples import Rejected, Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import StageClock
from pipeline.models.explain import PromptExplainer, SampleExplainer
from pipeline.models.malloc import keep_freed_memory
from pipeline.outputs.annotations import Annotated
from pipeline.outputs.books.busy import BATCHES_AT_ONCE
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit, make_commit
from pipeline.outputs.refinement.guides import guide_maker
from pipeline.outputs.tables import ShardTables
from pipeline.run.annotator import Annotator
from pipeline.run.queue import Outcome, Trial
from pipeline.run.watchdog import Watchdog

Batch = list[Read[list[Prompt]]]


class ShardWorker(ABC):
    """Does shard after shard. What goes wrong with one is told, and leaves the others alone.

    Several threads may each do a shard at once.
    """

    def __init__(self, config: RunConfig) -> None:
        """Watch over the shards as `config.engine` says, and commit them in `config.output`."""
        keep_freed_memory()
        self.ledger = Ledger(config.output)
        self.watchdog = Watchdog(config.engine.stall_seconds)
        self._stopped = threading.Event()
        self._taken_over = ""  # why, where the output belongs to another run now

    def stop(self) -> None:
        """Leave the shards that are being done, each at its next batch."""
        self._stopped.set()

    def try_shard(self, trial: Trial, on_images: Callable[[int], object]) -> Outcome:
        """Do and commit a shard; whatever goes wrong is in the outcome."""
        try:
            with self.watchdog.watch() as moved_on:

                def alive() -> None:
                    moved_on()
                    if self._stopped.is_set():
                        raise Stopped("stopped")

                self.do_shard(trial, on_images, alive)
        except ShardError as error:
            return Outcome(str(error), transient=storage.is_transient(error))
        except NotWritten as error:
            return Outcome(str(error), transient=True)
        except TooManyRejects as error:
            return Outcome(str(error), final=True)
        except Stopped as error:
            return Outcome(self._taken_over or str(error), taken_over=bool(self._taken_over))
        except TakenOver as error:
            self._taken_over = str(error)
            self.stop()
            return Outcome(str(error), taken_over=True)
        except OSError as error:
            return Outcome(one_line(error, kind=True), transient=storage.is_transient(error))
        except Exception as error:  # whatever it is, it must not take other shards with it
            print_traceback()
            self._leave_if_broken()
            return Outcome(one_line(error, kind=True))
        return Outcome(record=self.ledger.take_report(trial.shard.name))

    def _leave_if_broken(self) -> None:
        """End the process if its GPU is: it would fail every other shard as well, in no time."""
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"the GPU no longer works, this worker ends: {error}", flush=True)
            os._exit(1)

    def commit(
        self, commit: Commit, files: Mapping[str, bytes], clock: StageClock | None = None
    ) -> None:
        """Write the tables of a shard, and the record that it is done; see `Ledger.commit`.

        Raises:
            NotWritten: the output cannot be written.
            TakenOver: it belongs to another run now.
        """
        try:
            self.ledger.commit(commit, files, clock)
        except OSError as error:
            raise NotWritten(f"the output: {one_line(error, kind=True)}") from error

    @abstractmethod
    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        """Do every sample of the shard and commit it; what it raises is the reason why not.

        Args:
            trial: what to read, and which try this is.
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
        self._calibration = load_calibration(config.prompts.calibration, config.identity())
        vectors = config.prompts.source == "embeddings"
        prompts_of = PromptReader(config.prompts, self.explain.embed_width if vectors else None)
        self.read = ShardReader.of(
            config,
            lambda raw: prompts_of(raw.fields),
            self.explain.squash,
            guide_maker(config.mask, self.explain.has_prompts, config.enough),
            config.enough,
        )

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        """Annotate every sample of the shard, write its tables and commit it.

        Raises:
            ShardError: the shard cannot be read to its end; nothing was written.
            TooManyRejects: nothing was written.
            NotWritten: the output cannot be written; nothing was committed.
        """
        shard, started, clock = trial.shard, time.monotonic(), StageClock()
        order = self.explain.heat_order
        tables = ShardTables(shard.name, self.config, order, self._calibration)
        incomplete = ""
        try:
            for batch, found in self._annotated(shard, alive, clock):
                with clock.measure("write"):
                    _add(batch, found, tables)
                on_images(len(batch))
                alive()
        except ShardError as error:
            # What the network cut short may well be whole the next time.
            last = trial.waited_out if storage.is_transient(error) else trial.last
            if not self.config.salvage or not last:
                raise
            incomplete = str(error)
        self._check_rejects(tables)
        if incomplete and not tables.samples:
            raise ShardError(f"nothing to salvage: {incomplete}")
        with clock.measure("write"):
            files = tables.files()
        commit = make_commit(
            shard,
            self.config.fingerprint(),
            tables.counts(),
            files,
            seconds=time.monotonic() - started,
            attempt=trial.number,
            degraded=tables.degraded,
            incomplete=incomplete,
            names=tables.names(),
            threads=self.read.threads,
        )
        self.commit(commit, files, clock)

    def _annotated(
        self, shard: Shard, alive: Callable[[], None], clock: StageClock
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
            return batch, self.annotator.annotate(samples, (begun, number), alive, clock)

        with ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="annotate") as pool:
            batches = in_batches(self.read(shard, clock), self.config.engine.batch_size)
            yield from map_ahead(pool, annotate, enumerate(batches), BATCHES_AT_ONCE - 1)

    def _check_rejects(self, tables: ShardTables) -> None:
        counts = tables.counts()
        rejected, samples = sum(counts["rejects"].values()), counts["samples"]
        lost = tables.lost_images
        if lost > self.config.max_reject_fraction * (samples - rejected + lost):
            reasons = ", ".join(f"{n} {reason}" for reason, n in counts["rejects"].items())
            raise TooManyRejects(
                f"{rejected} of {samples} samples rejected ({reasons}; the first: "
                f"{tables.first_reject()}), more than --max_reject_fraction "
                f"{self.config.max_reject_fraction}"
            )


MakeWorker = Callable[[Any], ShardWorker]
"""A worker for the settings of a run, `RunConfig` or what extends it."""


def _add(batch: Batch, found: list[Annotated], tables: ShardTables) -> None:
    annotated = iter(found)
    for sample in batch:
        if isinstance(sample, Rejected):
            tables.add_rejected(sample)
        elif isinstance(sample, Sample):
            tables.add(sample, next(annotated))
