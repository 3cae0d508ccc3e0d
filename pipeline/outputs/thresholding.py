"""From raw maps to the foreground of each, in closed form where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from jaxtyping import Float
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.inputs.samples import Guide
from pipeline.outputs.closed_form.level_sets import applies, level_sets
from pipeline.outputs.closed_form.winners import winners
from pipeline.outputs.masks import Foreground, why_empty
from pipeline.outputs.raster import rasters
from pipeline.outputs.refinement.refine import refined_heat

FINE = 4
"""Pixels to a grid row from where on the closed form is the faster way: measured, 160² to 12 MP."""


def threshold_maps(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
    counts: Sequence[int] | None = None,
    guides: Sequence[Guide | None] | None = None,
) -> Iterator[Foreground]:
    """Upsample, normalise and threshold the maps of images of one size, on their device.

    Maps that are refined are so between: at the size of their guide, which is their grid then.

    Args:
        raw: maps on the patch grid, those of an image one after the other.
        height: of the stored images, pixels.
        width: of the stored images, pixels.
        thresholds: of each map's class; None for the run's.
        config: the run's threshold and rule, and whether the maps of an image compete.
        order: of the steps from maps to heat.
        counts: how many of the maps each image has, in order; None where all are of one image.
        guides: of each image, `completed`, where `config` refines maps.

    Yields:
        The maps in order, in as many parts as memory needs.

    Raises:
        ValueError: maps are to be refined, and an image has no guide.
    """
    if config.refine != "none":
        counts = [len(raw)] if counts is None else counts
        guides = [None] * len(counts) if guides is None else guides
        yield from _refined(raw, height, width, thresholds, config, order, counts, guides)
    elif not applies(config, order):
        yield from rasters(raw, height, width, thresholds, config, order, counts)
    elif config.overlap == "winner":
        yield from winners(raw, height, width, thresholds, config, order, counts)
    else:
        yield from level_sets(raw, height, width, thresholds, config, order)


def _refined(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder,
    counts: Sequence[int],
    guides: Sequence[Guide | None],
) -> Iterator[Foreground]:
    """Image by image, so that few maps are there at the size of a guide."""
    then = replace(config, refine="none")
    start = 0
    for count, guide in zip(counts, guides, strict=True):
        of_image = slice(start, start := start + count)
        if guide is None:
            raise ValueError(f"--mask.refine {config.refine} needs the guide of every image")
        if not count:
            continue
        maps, own = raw[of_image], thresholds[of_image]
        reasons = iter(why_empty(maps, order))
        heat = refined_heat(maps, guide, config, order)
        make = rasters if len(heat[0]) * FINE > height else threshold_maps
        for part in make(heat, height, width, own, then):
            before = islice(reasons, len(part.empty))
            empty = [
                of_map if of_map == "not_finite" else of_refined  # which would be "flat_map"
                for of_map, of_refined in zip(before, part.empty, strict=True)
            ]
            yield replace(part, empty=empty)
