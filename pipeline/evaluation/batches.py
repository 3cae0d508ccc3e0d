"""The images of a shard that can be scored, in batches; the others are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from pipeline.evaluation.counting import Counted
from pipeline.inputs.reader import ReadShard, in_batches
from pipeline.inputs.samples import Rejected, Sample, Skipped, Wanted
from pipeline.inputs.shards import Shard


@dataclass(frozen=True)
class Batches(Generic[Wanted]):
    """Reads shards.

    Attributes:
        read: finds the images and what is known about each.
        size: images in a batch.
        unscored: status of samples about which nothing is known.
    """

    read: ReadShard[Wanted]
    size: int
    unscored: str

    def __call__(
        self, shard: Shard, counted: Counted, on_images: Callable[[int], object]
    ) -> Iterator[list[Sample[Wanted]]]:
        """Every batch of a shard; what happened to the samples goes into `counted`.

        Raises:
            ShardError: the shard cannot be read to its end.
        """
        for batch in in_batches(self.read(shard, counted.clock), self.size):
            scored = []
            for sample in batch:
                if isinstance(sample, Rejected):
                    counted.reject(sample.reason)
                elif isinstance(sample, Skipped):
                    counted.statuses[self.unscored] += 1
                else:
                    counted.statuses["scored"] += 1
                    scored.append(sample)
            if scored:
                yield scored
            on_images(len(batch))
