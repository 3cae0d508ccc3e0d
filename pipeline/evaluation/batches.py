"""The cases of a shard in batches, cut by the shard's contents only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from jaxtyping import UInt8
from torch import Tensor

from pipeline import storage
from pipeline.errors import Reject
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Counted
from pipeline.inputs.images import decode
from pipeline.inputs.samples import image_bytes
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample, read_samples

Truth = TypeVar("Truth")


@dataclass(frozen=True)
class Case(Generic[Truth]):
    """An image that can be scored.

    Attributes:
        index: position in the shard.
        key: of the sample.
        pixels: RGB, at the model's size.
        truth: what is known about it.
    """

    index: int
    key: str
    pixels: UInt8[Tensor, "3 size size"]
    truth: Truth


ReadTruth = Callable[[RawSample], Truth | None]
"""Finds what is known about a sample; None where there is nothing to score. May raise Reject."""
Fit = Callable[[Tensor], Tensor]
"""Brings RGB pixels [3, height, width] to the model's size."""


def read_cases(
    shard: Shard, config: EvaluationConfig, read_truth: ReadTruth[Truth], fit: Fit
) -> Iterator[Case[Truth] | Reject | None]:
    """A case for every sample of a shard; why there is none; or None for nothing to score.

    Raises:
        ShardError: the shard cannot be read to its end.
    """
    seen: set[str] = set()
    with storage.open_read(shard.location) as stream:
        for raw in islice(read_samples(stream), config.limit_samples):
            try:
                if raw.key in seen:
                    raise Reject("duplicate_key", "an earlier sample has this key")
                seen.add(raw.key)
                truth = read_truth(raw)
                if truth is None:
                    yield None
                    continue
                pixels = fit(decode(image_bytes(raw), config.max_pixels))
            except Reject as reject:
                yield reject
                continue
            yield Case(raw.index, raw.key, pixels, truth)


@dataclass(frozen=True)
class Batches(Generic[Truth]):
    """Reads shards.

    Attributes:
        config: of the run.
        read_truth: finds what is known about a sample.
        fit: brings an image to the model's size.
        unscored: status of samples about which nothing is known.
    """

    config: EvaluationConfig
    read_truth: ReadTruth[Truth]
    fit: Fit
    unscored: str

    def __call__(
        self, shard: Shard, counted: Counted, on_images: Callable[[int], object]
    ) -> Iterator[list[Case[Truth]]]:
        """Every batch of a shard; what happened to the samples goes into `counted`.

        Raises:
            ShardError: the shard cannot be read to its end.
        """
        batch: list[Case[Truth]] = []
        for case in read_cases(shard, self.config, self.read_truth, self.fit):
            if case is None:
                counted.statuses[self.unscored] += 1
            elif isinstance(case, Reject):
                counted.reject(case.reason)
            else:
                counted.statuses["scored"] += 1
                batch.append(case)
            if len(batch) == self.config.engine.batch_size:
                yield batch
                on_images(len(batch))
                batch = []
        if batch:
            yield batch
            on_images(len(batch))
