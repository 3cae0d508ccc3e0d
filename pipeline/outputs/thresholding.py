"""From raw maps to the foreground of each, in closed form where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.level_sets import applies, level_sets
from pipeline.outputs.masks import Foreground
from pipeline.outputs.raster import rasters


def threshold_maps(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
) -> Iterator[Foreground]:
    """Upsample, normalise and threshold the maps of one image, on the device they are on.

    Args:
        raw: maps on the patch grid.
        height: of the stored image, pixels.
        width: of the stored image, pixels.
        thresholds: of each map's class; None for the run's.
        config: the run's threshold and rule.
        order: of the steps from maps to heat.

    Yields:
        The maps in order, in as many parts as memory needs.
    """
    make = level_sets if applies(config, order) else rasters
    yield from make(raw, height, width, thresholds, config, order)
