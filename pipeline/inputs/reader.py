"""From a shard to its images: the one way in for annotation and for every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeAlias

import torch
from torch import Tensor

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import DUPLICATE_KEY, Reject, ShardError
from pipeline.inputs.images import Picture
from pipeline.inputs.look_ahead import map_ahead
from pipeline.inputs.naming import AS_WEBDATASET, Naming
from pipeline.inputs.samples import (
    SHOWN,
    Guide,
    Rejected,
    Sample,
    Skipped,
    Wanted,
    image_bytes,
    image_name,
)
from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import StageClock
from pipeline.inputs.tars import RawSample, read_samples

DECODE_THREADS = 2
AHEAD = 2 * DECODE_THREADS

Read: TypeAlias = Sample[Wanted] | Rejected | Skipped
ReadShard: TypeAlias = Callable[[Shard, StageClock | None], Iterator[Read[Wanted]]]
"""Every sample of a shard in order, the time told to a clock, if there is one; raises `ShardError`
after the last one that can be read."""
Want: TypeAlias = Callable[[RawSample], Wanted | None]
"""What is wanted of a sample: its prompts, its ground truth; None for nothing. May raise `Reject`.
Several threads call it."""
Fit: TypeAlias = Callable[[Tensor], Tensor]
"""Brings RGB pixels [3, height, width] to the size that is asked for. Several threads call it."""
MakeGuide: TypeAlias = Callable[[Sample[Wanted], Picture], Guide | None]
"""Makes of a sample and its image what its maps are refined by; None where it will have no maps.
Several threads call it. May raise `Reject`."""


def as_stored(pixels: Tensor) -> Tensor:
    """Pixels at their own size."""
    return pixels


def least_for(fit: Fit, enough: float | None) -> int | None:
    """Pixels that the shorter side of an image keeps when it is decoded; None for all.

    Args:
        fit: brings images to a square of one size, which it is asked for.
        enough: pixels to one of that size; None for all.
    """
    if enough is None:
        return None
    return round(enough * fit(torch.zeros((3, 1, 1), dtype=torch.uint8)).shape[-1])


@dataclass(frozen=True)
class ShardReader(Generic[Wanted]):
    """Reads shards of images, each to its proven end; decodes in threads, a few samples ahead.

    Attributes:
        want: finds what is wanted of a sample.
        fit: brings its image to size.
        limit_samples: only the first ones of every shard are read.
        max_pixels: larger images are rejected.
        max_sample_bytes: larger samples are rejected unread.
        naming: which members of a tar belong together, and which is the image.
        ahead: samples that are decoded before they are asked for.
        threads: that decode, for every shard that is being read.
        guide: makes what maps are refined by, where they are.
        least: pixels that the shorter side of a JPEG keeps when it is decoded; None for all.
    """

    want: Want[Wanted]
    fit: Fit = as_stored
    limit_samples: int | None = None
    max_pixels: int = RunConfig.max_pixels
    max_sample_bytes: int = RunConfig.max_sample_bytes
    naming: Naming = AS_WEBDATASET
    ahead: int = AHEAD
    threads: int = DECODE_THREADS
    guide: MakeGuide[Wanted] | None = None
    least: int | None = None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        want: Want[Wanted],
        fit: Fit,
        guide: MakeGuide[Wanted] | None = None,
        enough: float | None = None,
    ) -> ShardReader[Wanted]:
        """A reader with the limits of a run, one batch ahead of the batch that is wanted.

        Args:
            config: of the run.
            want: finds what is wanted of a sample.
            fit: brings its image to size.
            guide: makes what maps are refined by, where they are.
            enough: pixels of a decoded JPEG to one that `fit` makes, at least; None for all.
        """
        return cls(
            want,
            fit,
            limit_samples=config.limit_samples,
            max_pixels=config.max_pixels,
            max_sample_bytes=config.max_sample_bytes,
            naming=Naming(config.key_end, config.image_field),
            ahead=2 * config.engine.batch_size,
            threads=max(DECODE_THREADS, config.engine.cpu_threads()),
            guide=guide,
            least=least_for(fit, enough),
        )

    @classmethod
    def of_run(
        cls,
        identity: Mapping[str, Any],
        want: Want[Wanted],
        fit: Fit = as_stored,
        guide: MakeGuide[Wanted] | None = None,
        least: int | None = None,
    ) -> ShardReader[Wanted]:
        """A reader that finds the images of a run as the run found them.

        Args:
            identity: the settings of the run.
            want: finds what is wanted of a sample.
            fit: brings its image to size.
            guide: makes what maps are refined by.
            least: pixels that the shorter side of a JPEG keeps; None for all.
        """
        return cls(
            want,
            fit,
            guide=guide,
            least=least,
            max_pixels=identity.get("max_pixels", cls.max_pixels),
            max_sample_bytes=identity.get("max_sample_bytes", cls.max_sample_bytes),
            naming=Naming.of(identity),
        )

    def __call__(self, shard: Shard, clock: StageClock | None = None) -> Iterator[Read[Wanted]]:
        """Every sample of the shard in order, or why it cannot be used.

        Args:
            shard: to read.
            clock: is told the time that it takes.

        Raises:
            ShardError: after the last sample that could be read.
        """
        told = clock or StageClock()

        def read(marked: tuple[RawSample, bool]) -> Read[Wanted]:
            with told.measure("decode"):
                return self._read(marked)

        with (
            storage.open_read(shard.location) as stream,
            ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool,
        ):
            raws = read_samples(stream, self.max_sample_bytes, self.naming)
            raws = told.waiting("read", islice(raws, self.limit_samples))
            yield from map_ahead(pool, read, _marked(raws), self.ahead)

    def _read(self, marked: tuple[RawSample, bool]) -> Read[Wanted]:
        raw, is_repeated = marked
        try:
            if is_repeated:
                raise Reject(DUPLICATE_KEY, "an earlier sample has this key")
            if raw.too_large:
                raise Reject("too_large", f"{raw.key}.{raw.too_large} is beyond --max_sample_bytes")
            if raw.repeated:
                raise Reject("duplicate_field", f"{raw.key}.{raw.repeated} is there twice")
            wanted = self.want(raw)
            if wanted is None:
                return Skipped(raw.index, raw.key)
            picture = Picture(image_bytes(raw), self.max_pixels)
            fitted = self.fit(picture.pixels(self.least))
            size = (picture.height, picture.width)
            sample = Sample(raw.index, raw.key, *size, fitted, wanted, image_name(raw))
            return replace(sample, guide=self.guide(sample, picture)) if self.guide else sample
        except Reject as reject:
            detail = reject.detail
            if raw.links and reject.reason == "missing_field":
                links = ", .".join(raw.links[:SHOWN])
                detail += (
                    f"; .{links} is a link, which holds nothing: pack with tar --dereference "
                    "--hard-dereference"
                )
            why = (reject.reason, detail, image_name(raw), reject.images)
            return Rejected(raw.index, raw.key, *why)


def _marked(raws: Iterable[RawSample]) -> Iterator[tuple[RawSample, bool]]:
    """Every raw sample, and whether an earlier one has its key."""
    seen: set[str] = set()
    for raw in raws:
        yield raw, raw.key in seen
        seen.add(raw.key)


def in_batches(read: Iterable[Read[Wanted]], size: int) -> Iterator[list[Read[Wanted]]]:
    """What was read of a shard, cut after every `size` images that can be used.

    The cuts depend on the shard's contents only: a batch decides about the last bits of a float,
    and an interrupted run has to end in the same bytes as one that was not.

    Raises:
        ShardError: what `read` raises, after a batch of the samples before it.
    """
    batch: list[Read[Wanted]] = []
    usable = 0
    error: ShardError | None = None
    try:
        for sample in read:
            batch.append(sample)
            usable += isinstance(sample, Sample)
            if usable == size:
                yield batch
                batch, usable = [], 0
    except ShardError as caught:
        error = caught
    if batch:
        yield batch
    if error:
        raise error
