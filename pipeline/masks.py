"""From raw maps to run-length encoded masks at the size of the stored image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pycocotools import mask as coco
from torch import Tensor

import legrad
from pipeline.config import MaskConfig

CHUNK_PIXELS = 64 << 20
"""Heatmap pixels upsampled at once (4 bytes each)."""


class RLE(TypedDict):
    """COCO's compressed run lengths: `size` is [height, width], runs go down the columns."""

    size: list[int]
    counts: str


@dataclass(frozen=True)
class Mask:
    """The foreground of one heatmap.

    Attributes:
        segmentation: the mask.
        area: foreground pixels.
        bbox: tight [x, y, width, height] in pixels.
        heat_mean: mean heat of the foreground, 0..1.
        threshold: what the heat of a foreground pixel exceeds.
    """

    segmentation: RLE
    area: int
    bbox: list[float]
    heat_mean: float
    threshold: float


@dataclass(frozen=True)
class Foreground:
    """The thresholded heatmaps of one image, on their way from the model's device.

    Attributes:
        pixels: 0 or 1, Fortran-ordered for COCO's encoder.
        heat_means: mean heat of each foreground, 0..1.
        thresholds: used for each map.
    """

    pixels: UInt8[np.ndarray, "height width map"]
    heat_means: list[float]
    thresholds: list[float]


def threshold_maps(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
) -> Iterator[Foreground]:
    """Upsample, normalise and threshold the maps of one image, on the device they are on.

    The maps are upsampled transposed: [map, width, height] in C order is the Fortran-ordered
    [height, width, map] that COCO's encoder wants, so that nothing has to be copied.

    Args:
        raw: maps on the patch grid.
        height: of the stored image, pixels.
        width: of the stored image, pixels.
        thresholds: of each map's class; None for the run's.
        config: the run's threshold and rule.

    Yields:
        The maps in order, in as many parts as memory needs.
    """
    step = max(1, CHUNK_PIXELS // (height * width))
    for start in range(0, len(raw), step):
        chunk = slice(start, start + step)
        heat = legrad.heatmap(raw[chunk].transpose(1, 2), size=(width, height))
        levels = _levels(heat, thresholds[chunk], config)
        foreground = heat > levels[:, None, None]
        heat_means = (heat * foreground).sum((1, 2)) / foreground.sum((1, 2)).clamp(min=1)
        pixels = foreground.to(torch.uint8).cpu().numpy().transpose(2, 1, 0)
        yield Foreground(pixels, heat_means.tolist(), levels.tolist())


def encode_masks(foreground: Foreground, min_area: float) -> list[Mask | str]:
    """A mask for every map, or the reason why it has none: `flat_map` or `min_area`.

    Args:
        foreground: thresholded maps of one image.
        min_area: smaller masks are dropped; pixels from 1 up, a fraction of the image below 1.
    """
    height, width = foreground.pixels.shape[:2]
    least = min_area if min_area >= 1 else min_area * height * width
    masks: list[Mask | str] = []
    for segmentation, heat_mean, threshold in zip(
        encode(foreground.pixels), foreground.heat_means, foreground.thresholds, strict=True
    ):
        area, bbox = measure(segmentation)
        if area == 0:
            # Min-max puts some pixel of every other map at 1, above any threshold.
            masks.append("flat_map")
        elif area < least:
            masks.append("min_area")
        else:
            masks.append(Mask(segmentation, area, bbox, heat_mean, threshold))
    return masks


def encode(pixels: UInt8[np.ndarray, "height width mask"]) -> list[RLE]:
    """Run lengths of Fortran-ordered 0/1 masks."""
    encoded: Any = coco.encode(pixels)  # a list; the stubs know of single masks only
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def decode(segmentation: RLE) -> Bool[np.ndarray, "height width"]:
    """The pixels of an encoded mask."""
    rle: Any = segmentation  # the stubs want `counts` to be mutable to bytes
    pixels: np.ndarray = coco.decode(rle).astype(bool)
    return pixels


def measure(segmentation: RLE) -> tuple[int, list[float]]:
    """Foreground pixels, and the tight box [x, y, width, height] around them."""
    rle: Any = segmentation
    return int(coco.area(rle)), coco.toBbox(rle).tolist()


def _levels(
    heat: Float[Tensor, "map width height"], own: Sequence[float | None], config: MaskConfig
) -> Float[Tensor, " map"]:
    """The threshold of each map."""
    if config.rule == "mean":
        return heat.mean((1, 2))
    return heat.new_tensor([config.threshold if t is None else t for t in own])
