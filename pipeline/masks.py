"""From raw maps to run-length encoded masks at the size of the stored image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pycocotools import mask as coco
from torch import Tensor

import legrad

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
        segmentation: the mask; never empty.
        area: foreground pixels.
        bbox: tight [x, y, width, height] in pixels.
        heat_mean: mean heat of the foreground, 0..1.
    """

    segmentation: RLE
    area: int
    bbox: list[float]
    heat_mean: float


def make_masks(
    raw: Float[Tensor, "prompt rows columns"], height: int, width: int, threshold: float
) -> Iterator[Mask | None]:
    """Upsample, normalise, threshold and encode the maps of one image.

    The maps are upsampled transposed: [prompt, width, height] in C order is the Fortran-ordered
    [height, width, prompt] that COCO's encoder wants, so that nothing has to be copied.

    Args:
        raw: maps on the patch grid.
        height: of the stored image, pixels.
        width: of the stored image, pixels.
        threshold: foreground is what exceeds it, 0..1.

    Yields:
        A mask per map, in order; None where no pixel exceeds the threshold.
    """
    step = max(1, CHUNK_PIXELS // (height * width))
    for start in range(0, len(raw), step):
        chunk = raw[start : start + step].transpose(1, 2)
        heat = legrad.heatmap(chunk, size=(width, height))
        foreground = heat > threshold
        areas = foreground.sum((1, 2))
        means = (heat * foreground).sum((1, 2)) / areas.clamp(min=1)
        pixels = foreground.to(torch.uint8).cpu().numpy().transpose(2, 1, 0)
        yield from map(_mask, encode(pixels), means.tolist())


def encode(pixels: UInt8[np.ndarray, "height width mask"]) -> list[RLE]:
    """Run lengths of Fortran-ordered 0/1 masks."""
    encoded: Any = coco.encode(pixels)  # a list; the stubs know of single masks only
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def decode(segmentation: RLE) -> Bool[np.ndarray, "height width"]:
    """The pixels of an encoded mask."""
    rle: Any = segmentation
    pixels: np.ndarray = coco.decode(rle).astype(bool)
    return pixels


def measure(segmentation: RLE) -> tuple[int, list[float]]:
    """Foreground pixels, and the tight box [x, y, width, height] around them."""
    rle: Any = segmentation  # the stubs want `counts` to be mutable to bytes
    return int(coco.area(rle)), coco.toBbox(rle).tolist()


def _mask(segmentation: RLE, heat_mean: float) -> Mask | None:
    area, bbox = measure(segmentation)
    return Mask(segmentation, area, bbox, heat_mean) if area else None
