"""Masks by way of every pixel's heat: the literal definition, and the reference of `level_sets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.masks import Foreground, encode, why_empty

CHUNK_PIXELS = 64 << 20
"""Heatmap pixels upsampled at once (4 bytes each)."""


def rasters(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
) -> Iterator[Foreground]:
    """Upsample, normalise and threshold the maps of one image, on the device they are on.

    The maps are upsampled transposed: [map, width, height] in C order is the Fortran-ordered
    [height, width, map] that COCO's encoder wants, so that nothing has to be copied.

    Arguments and what it yields are those of `pipeline.outputs.thresholding.threshold_maps`.
    """
    step = max(1, CHUNK_PIXELS // (height * width))
    for start in range(0, len(raw), step):
        chunk = slice(start, start + step)
        transposed = raw[chunk].transpose(1, 2)
        heat = legrad.heatmap(transposed, (width, height), order=order)
        levels = _levels(heat, thresholds[chunk], config)
        foreground = heat > levels[:, None, None]
        heat_means = (heat * foreground).sum((1, 2)) / foreground.sum((1, 2)).clamp(min=1)
        pixels = foreground.to(torch.uint8).cpu().numpy().transpose(2, 1, 0)
        yield Foreground(
            heat_means=heat_means.tolist(),
            thresholds=levels.tolist(),
            empty=why_empty(raw[chunk], order),
            encode=partial(encode, pixels),
        )


def _levels(
    heat: Float[Tensor, "map width height"], own: Sequence[float | None], config: MaskConfig
) -> Float[Tensor, " map"]:
    """The threshold of each map."""
    if config.rule == "mean":
        return heat.mean((1, 2))
    return heat.new_tensor(config.levels(own))
