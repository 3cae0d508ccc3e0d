"""Guides for maps that a run has stored: its images, read again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from pipeline import storage
from pipeline.config import MaskConfig
from pipeline.errors import ConfigError, ShardError, one_line
from pipeline.inputs.images import Picture
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Guide, Rejected, Sample
from pipeline.inputs.shards import Shard, find_shards
from pipeline.inputs.tars import RawSample
from pipeline.outputs.records import Commit
from pipeline.outputs.refinement.guides import completed, guide_of, least_of

Row = Mapping[str, Any]
ENOUGH_BEFORE = 2.0
"""`decode_enough` of a run whose identity does not say it."""


class ImagesOfRun:
    """The images of a run's masks, found by the name of their shard and their key."""

    def __init__(
        self, patterns: Sequence[str], input_root: str, identity: Mapping[str, Any]
    ) -> None:
        """Look for the shards.

        Args:
            patterns: as --input of annotate.py has them.
            input_root: of the run.
            identity: of the run, which says how its shards are read.

        Raises:
            ConfigError: a pattern matches nothing.
        """
        found = find_shards(patterns, input_root, "--images")
        self._shards = {shard.name: shard for shard in found}
        self._identity = identity

    def check(self, commits: Sequence[Commit]) -> None:
        """See that there is a shard for everything that has masks.

        Raises:
            ConfigError: naming the first one that is missing.
        """
        missing = [c.shard for c in commits if c.masks and c.shard not in self._shards]
        if missing:
            raise ConfigError(
                f"--images: {len(missing)} shards of the source are not among them, the first "
                f"{missing[0]}; is --input_root that of the run?"
            )

    def guides(
        self, shard: str, rows: Collection[Row], configs: Sequence[MaskConfig]
    ) -> Iterator[list[Guide]]:
        """The guides of every image that has rows, in the order of the rows: one per config.

        Args:
            shard: name of the shard.
            rows: of its annotation table, in its order, which is that of the shard.
            configs: of refinements; equal ones share a guide.

        Raises:
            ConfigError: the shard cannot be read, or an image is not in it or not at its place,
                cannot be decoded, or has another size.
        """
        sizes = {row["key"]: (row["height"], row["width"]) for row in rows}
        if not sizes:
            return

        def want(raw: RawSample) -> str | None:
            return raw.key if raw.key in sizes else None

        enough = self._enough()
        made: dict[str, list[Guide]] = {}

        def make(sample: Sample[str], picture: Picture) -> None:
            made[sample.key] = _made(picture, configs, enough)

        # Other guides than the smallest may have the image decoded again.
        smallest = min(configs, key=lambda config: config.refine_size)
        least = least_of(smallest, enough)
        read = ShardReader.of_run(self._identity, want, _nothing, make, least)
        of_shard = self._shards[shard]
        left = dict.fromkeys(sizes)
        try:
            for sample in read(of_shard):
                if isinstance(sample, Rejected) and sample.key in left:
                    raise _unusable(of_shard, sample.key, sample.detail or sample.reason)
                if isinstance(sample, Sample):
                    if (due := next(iter(left))) != sample.key:
                        where = f"where it was, before image {sample.key}"
                        raise _unusable(of_shard, due, f"is not in the shard {where}")
                    if (size := (sample.height, sample.width)) != sizes[sample.key]:
                        was = "{1}x{0}".format(*sizes[sample.key])
                        is_now = "{1}x{0}".format(*size)
                        raise _unusable(of_shard, sample.key, f"is {is_now} now, and was {was}")
                    del left[sample.key]
                    yield made.pop(sample.key)
                if not left:
                    return
        except (OSError, ShardError) as error:
            place = storage.public(of_shard.location)
            raise ConfigError(f"--images {place}: {one_line(error)}") from error
        raise _unusable(of_shard, next(iter(left)), "is not in the shard")

    def _enough(self) -> float | None:
        if self._identity.get("decode") != "scaled":
            return None
        enough: float = self._identity.get("decode_enough", ENOUGH_BEFORE)
        return enough


def _nothing(pixels: Tensor) -> Tensor:
    """No pixel: guides are all that is wanted of an image."""
    return pixels.new_empty((3, 0, 0))


def _made(picture: Picture, configs: Sequence[MaskConfig], enough: float | None) -> list[Guide]:
    made: dict[tuple[str, int], Guide] = {}
    for config in configs:
        recipe = (config.refine, config.refine_size)
        if recipe not in made:
            made[recipe] = completed(guide_of(picture, config, least_of(config, enough)), config)
    return [made[config.refine, config.refine_size] for config in configs]


def _unusable(shard: Shard, key: str, reason: str) -> ConfigError:
    return ConfigError(f"--images {storage.public(shard.location)}: image {key} {reason}")
