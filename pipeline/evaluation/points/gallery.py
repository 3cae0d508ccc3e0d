"""The worst and the best images of a run, with the points drawn on the masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from pipeline.config import RunConfig
from pipeline.errors import Reject, ShardError
from pipeline.evaluation import report
from pipeline.evaluation.matching import Matcher
from pipeline.evaluation.points.pairs import LabelledPairs, PairPoints
from pipeline.evaluation.points.pictures import Masks
from pipeline.inputs.naming import Naming
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Rejected, Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample
from pipeline.outputs.masks import stretched

CLASSES = 4
"""Classes drawn per image."""
FADED = 0.3
YES, NO = "lime", "red"


class Picture(NamedTuple):
    """An image to draw: its IoU, its pixels [height, width, 3], its points, its masks by label."""

    image: str
    iou: float
    pixels: np.ndarray
    pairs: list[PairPoints]
    masks: dict[str, np.ndarray]


def draw_gallery(
    config: RunConfig,
    shards: Sequence[Shard],
    wanted: Mapping[str, float],
    pairs: LabelledPairs,
    masks: Masks,
    naming: Naming,
) -> None:
    """Write gallery.png: a row per image, a picture per class.

    Args:
        config: of the evaluation.
        shards: where to look for the images; those that are not there are left out.
        wanted: the images in their order, with their IoU.
        pairs: the points.
        masks: of the images, of any size: they are stretched.
        naming: that the keys of the masks are from.
    """
    found = dict(_pixels(config, naming, shards, set(wanted), Matcher(pairs.images)))
    points = pairs.of_images(found)
    shown = [
        Picture(image, iou, found[image], points[image], masks.get(image, {}))
        for image, iou in wanted.items()
        if image in found
    ]
    if shown:
        _draw(config.output, shown)


def _pixels(
    config: RunConfig, naming: Naming, shards: Sequence[Shard], left: set[str], match: Matcher
) -> Iterator[tuple[str, np.ndarray]]:
    """The pixels of the images in `left`, which loses those that were found."""
    for shard in shards:
        if not left:
            return
        try:
            yield from _pixels_of_shard(config, naming, shard, left, match)
        except ShardError as error:
            print(f"not drawn: the rest of {shard.uri}: {error}")


def _pixels_of_shard(
    config: RunConfig, naming: Naming, shard: Shard, left: set[str], match: Matcher
) -> Iterator[tuple[str, np.ndarray]]:
    wanted = frozenset(left)

    def known(key: str) -> str:
        with suppress(Reject):
            return match(key) or ""
        return ""

    def image_of(raw: RawSample) -> str | None:
        return image if (image := known(raw.key)) in wanted else None

    # Not `ShardReader.of`: --limit_samples is about the samples that were scored.
    read = ShardReader(
        image_of,
        max_pixels=config.max_pixels,
        max_sample_bytes=config.max_sample_bytes,
        naming=naming,
    )
    for sample in read(shard):
        image = known(sample.key)
        if image not in left:
            continue
        left.discard(image)
        if isinstance(sample, Sample):
            yield image, sample.pixels.permute(1, 2, 0).numpy()
        elif isinstance(sample, Rejected):  # it has a score, for its points were missed
            print(f"not drawn: {image}: {sample.reason}: {sample.detail}")
        if not left:
            return


def _draw(output: str, pictures: list[Picture]) -> None:
    drawn = report.figure(3.0 * CLASSES, 2.6 * len(pictures))
    grid = drawn.subplots(len(pictures), CLASSES, squeeze=False)
    for row, picture in zip(grid, pictures, strict=True):
        for axes in row:
            axes.axis("off")
        for axes, points in zip(row, picture.pairs, strict=False):
            _draw_class(axes, picture, points)
    report.save(output, "gallery.png", drawn)


def _draw_class(axes: Any, picture: Picture, points: PairPoints) -> None:
    """The image, faded outside the mask, with yes points in green and no points in red."""
    height, width = picture.pixels.shape[:2]
    mask = picture.masks.get(points.label.id, np.zeros((1, 1), dtype=bool))
    faded = FADED * picture.pixels + (1 - FADED) * 255
    inside = stretched(mask, height, width)[..., None]
    axes.imshow(np.where(inside, picture.pixels, faded).astype(np.uint8))
    for yes, colour in ((True, YES), (False, NO)):
        which = points.yes == yes
        axes.scatter(
            points.x[which] * width - 0.5,
            points.y[which] * height - 0.5,
            s=14,
            c=colour,
            edgecolors="black",
            linewidths=0.5,
        )
    axes.set_title(f"{picture.image}: {points.label.name} ({picture.iou:.2f})", fontsize=7)
