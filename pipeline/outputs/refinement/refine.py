"""Maps of an image refined by its colours, as the settings say."""

from __future__ import annotations

from jaxtyping import Float, Float32
from torch import Tensor

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.inputs.samples import Guide
from pipeline.outputs.refinement.pamr import pamr
from pipeline.outputs.refinement.regions import region_means

REGIONS_SHARE = 0.5
"""Of a region's mean in the heat of its pixels; the rest is the map's own."""


def refine(
    maps: Float32[Tensor, "map height width"], guide: Guide, config: MaskConfig
) -> Float32[Tensor, "map height width"]:
    """Refine the maps of one image, on the device they are on.

    Args:
        maps: heat 0..1 at the size of the guide.
        guide: of the image, `completed` for the same settings, on any device.
        config: what to do.

    Returns:
        Maps within the range of those that came in; not stretched to 0..1 again.

    Raises:
        ValueError: the guide has no regions, and they are to vote.
    """
    if config.refine == "none" or len(maps) == 0:
        return maps
    if "regions" in config.refine:
        if guide.regions is None:
            raise ValueError("the guide has no regions: make it with the settings of the run")
        means = region_means(maps, guide.regions.to(maps.device))
        maps = maps.lerp(means, REGIONS_SHARE)
    if "pamr" in config.refine:
        maps = pamr(maps, guide.pixels)
    return maps


def refined_heat(
    raw: Float[Tensor, "map rows columns"], guide: Guide, config: MaskConfig, order: HeatOrder
) -> Float32[Tensor, "map height width"]:
    """The refined heat of one image's maps at the size of its guide, 0..1.

    Upsampled and stretched as the method wants it, refined, and stretched again. Maps that compete
    do so after that, for every pixel of the image: to lose pixels before would be an edge in them
    that colours know nothing of (0.007 less mask mIoU on the demo's scenes, 0.004 on photographs).

    Args:
        raw: maps on the patch grid.
        guide: of the image.
        config: how they are refined.
        order: of the method's steps from maps to heat.
    """
    size = (guide.pixels.shape[1], guide.pixels.shape[2])
    heat = legrad.heatmap(raw, size, order=order)
    return legrad.minmax(refine(heat, guide, config))
