"""From raw maps to the foreground of each, in closed form where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.level_sets import applies, level_sets
from pipeline.outputs.closed_form.winners import winners
from pipeline.outputs.masks import Foreground
from pipeline.outputs.raster import rasters


def threshold_maps(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
    counts: Sequence[int] | None = None,
) -> Iterator[Foreground]:
    """Upsample, normalise and threshold the maps of images of one size, on their device.

    Args:
        raw: maps on the patch grid, those of an image one after the other.
        height: of the stored images, pixels.
        width: of the stored images, pixels.
        thresholds: of each map's class; None for the run's.
        config: the run's threshold and rule, and whether the maps of an image compete.
        order: of the steps from maps to heat.
        counts: how many of the maps each image has, in order; None where all are of one image.

    Yields:
        The maps in order, in as many parts as memory needs.
    """
    if not applies(config, order):
        yield from rasters(raw, height, width, thresholds, config, order, counts)
    elif config.overlap == "winner":
        yield from winners(raw, height, width, thresholds, config, order, counts)
    else:
        yield from level_sets(raw, height, width, thresholds, config, order)
