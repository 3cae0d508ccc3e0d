"""One shard in, one committed pair of tables out. Knows nothing of Ray."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from pipeline import storage
from pipeline.annotator import Annotator
from pipeline.config import AnnotateConfig
from pipeline.ledger import Commit, Ledger, file_record
from pipeline.samples import Rejected, Sample, SampleReader
from pipeline.shards import RawSample, Shard, read_samples
from pipeline.tables import ShardTables

DECODE_THREADS = 2


class Worker:
    """A model, and what it takes to annotate shard after shard with it."""

    def __init__(self, config: AnnotateConfig) -> None:
        """Load the model; see `Annotator` for what may go wrong."""
        torch.set_num_threads(config.engine.cpu_threads())
        self.config = config
        self.annotator = Annotator(config)
        self.ledger = Ledger(config.output)

    def try_shard(self, shard: Shard, on_images: Callable[[int], object]) -> None:
        """Annotate a shard, or write down in the ledger why that failed."""
        try:
            self.annotate_shard(shard, on_images)
        except Exception as error:  # whatever it is, it must not take the other shards with it
            traceback.print_exc()
            self.ledger.fail(shard, f"{type(error).__name__}: {error}")

    def annotate_shard(self, shard: Shard, on_images: Callable[[int], object]) -> Commit:
        """Annotate every sample of the shard, write its tables and commit it.

        Args:
            shard: what to read.
            on_images: told how many more samples are done, after every batch.

        Raises:
            ShardError: the shard cannot be read to its end; nothing was written.
            OSError: reading or writing failed; nothing was committed.
        """
        started = time.monotonic()
        tables = ShardTables(shard.name, self.config)
        for batch in self._batches(shard):
            samples = [sample for sample in batch if isinstance(sample, Sample)]
            found = iter(self.annotator.annotate(samples))
            for sample in batch:
                if isinstance(sample, Rejected):
                    tables.add_rejected(sample)
                else:
                    tables.add(sample, next(found))
            on_images(len(batch))
        files = tables.files()
        commit = Commit(
            shard=shard.name,
            uri=shard.uri,
            bytes=shard.size,
            **tables.counts(),
            files={path: file_record(data) for path, data in files.items()},
            seconds=round(time.monotonic() - started, 3),
        )
        self.ledger.commit(commit, files)
        return commit

    def _batches(self, shard: Shard) -> Iterator[list[Sample | Rejected]]:
        """The samples of a shard in order, cut after every `batch_size` that can be annotated.

        The cuts depend on the shard's contents only: a batch decides about the last bits of a
        float, and an interrupted run has to end in the same bytes as one that was not.
        """
        batch: list[Sample | Rejected] = []
        good = 0
        with storage.open_read(shard.location) as stream:
            for sample in self._decoded(read_samples(stream)):
                batch.append(sample)
                good += isinstance(sample, Sample)
                if good == self.config.engine.batch_size:
                    yield batch
                    batch, good = [], 0
        if batch:
            yield batch

    def _decoded(self, raws: Iterable[RawSample]) -> Iterator[Sample | Rejected]:
        """Decode in threads, a bounded number of samples ahead, and keep the order."""
        reader = SampleReader(
            self.config.prompts, self.config.read, self.annotator.preprocess.squash
        )
        ahead: deque[Future[Sample | Rejected]] = deque()
        with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as pool:
            for raw in raws:
                verdict = reader.admit(raw)
                ahead.append(_done(verdict) if verdict else pool.submit(reader.read_sample, raw))
                if len(ahead) > 2 * self.config.engine.batch_size:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def _done(verdict: Rejected) -> Future[Sample | Rejected]:
    future: Future[Sample | Rejected] = Future()
    future.set_result(verdict)
    return future
