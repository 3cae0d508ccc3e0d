"""Masks by way of every pixel's heat: the literal way, and the reference of `closed_form`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.masks import Foreground, encode, parts, why_empty

CHUNK_PIXELS = 64 << 20
"""Heatmap pixels upsampled at once (4 bytes each)."""


def rasters(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
    counts: Sequence[int] | None = None,
) -> Iterator[Foreground]:
    """Upsample, normalise and threshold maps, on the device they are on.

    The maps are upsampled transposed: [map, width, height] in C order is the Fortran-ordered
    [height, width, map] that COCO's encoder wants, so that nothing has to be copied.

    Arguments and what it yields are those of `pipeline.outputs.thresholding.threshold_maps`.
    """
    size = (width, height)
    heats: Iterator[tuple[Tensor, Tensor | None]]
    if config.overlap == "keep":
        heats = ((heat, None) for heat in _heats(raw.transpose(1, 2), size, order))
    else:
        heats = _competing(raw.transpose(1, 2), size, order, counts)
    start = 0
    for heat, wins in heats:
        chunk = slice(start, start := start + len(heat))
        levels = _levels(heat, thresholds[chunk], config)
        foreground = heat > levels[:, None, None]
        exceeds = None
        if wins is not None:
            exceeds = foreground.flatten(1).any(1)
            foreground &= wins
        heat_means = (heat * foreground).sum((1, 2)) / foreground.sum((1, 2)).clamp(min=1)
        pixels = foreground.to(torch.uint8).cpu().numpy().transpose(2, 1, 0)
        yield Foreground(
            heat_means=heat_means.tolist(),
            thresholds=levels.tolist(),
            empty=why_empty(raw[chunk], order, exceeds),
            encode=partial(encode, pixels),
        )


def _heats(
    maps: Float[Tensor, "map rows columns"], size: tuple[int, int], order: HeatOrder
) -> Iterator[Float32[Tensor, "some height width"]]:
    """The heat of maps, in as many parts as memory needs."""
    for part in parts(len(maps), CHUNK_PIXELS // (size[0] * size[1])):
        yield legrad.heatmap(maps[part], size, order=order)


def _competing(
    maps: Float[Tensor, "map rows columns"],
    size: tuple[int, int],
    order: HeatOrder,
    counts: Sequence[int] | None,
) -> Iterator[tuple[Float32[Tensor, "some height width"], Bool[Tensor, "some height width"]]]:
    """The heat of maps, and where each is the hottest of its image, in parts."""
    for of_image in maps.split_with_sizes([len(maps)] if counts is None else list(counts)):
        hottest = _hottest(of_image, size, order)
        start = 0
        for heat in _heats(of_image, size, order):  # again: all at once may be too much
            numbers = torch.arange(start, start := start + len(heat), device=heat.device)
            yield heat, numbers[:, None, None] == hottest


def _hottest(
    maps: Float[Tensor, "map rows columns"], size: tuple[int, int], order: HeatOrder
) -> Int64[Tensor, "height width"]:
    """Which map is the hottest at every pixel, the first of equals."""
    highest = torch.full(size, -torch.inf, device=maps.device)
    hottest = torch.zeros(size, dtype=torch.long, device=maps.device)
    start = 0
    for heat in _heats(maps, size, order):
        of_part, number = heat.max(0)
        higher = of_part > highest
        highest = torch.where(higher, of_part, highest)
        hottest = torch.where(higher, number + start, hottest)
        start += len(heat)
    return hottest


def _levels(
    heat: Float[Tensor, "map width height"], own: Sequence[float | None], config: MaskConfig
) -> Float[Tensor, " map"]:
    """The threshold of each map."""
    if config.rule == "mean":
        return heat.mean((1, 2))
    return heat.new_tensor(config.levels(own))
