"""From raw maps to run-length encoded masks at the size of the stored image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

import legrad
from legrad import HeatOrder


def parts(count: int, most: int) -> Iterator[slice]:
    """Things in parts that fit into memory: `most` of them at a time, one if that is none."""
    step = max(1, most)
    return (slice(start, start + step) for start in range(0, count, step))


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
    """The thresholded heatmaps of one image, off the model's device.

    Attributes:
        heat_means: mean heat of each foreground, 0..1.
        thresholds: used for each map.
        empty: what it means where a map has no foreground; see `why_empty`.
        encode: makes the run lengths of each.
    """

    heat_means: list[float]
    thresholds: list[float]
    empty: list[str]
    encode: Callable[[], list[RLE]]


def encode_masks(foreground: Foreground, min_area: float) -> list[Mask | str]:
    """A mask for every map, or the reason why it has none: that of `foreground`, or `min_area`.

    Args:
        foreground: thresholded maps of one image.
        min_area: smaller masks are dropped; pixels from 1 up, a fraction of the image below 1.
    """
    masks: list[Mask | str] = []
    for segmentation, heat_mean, threshold, empty in zip(
        foreground.encode(),
        foreground.heat_means,
        foreground.thresholds,
        foreground.empty,
        strict=True,
    ):
        area, bbox = measure(segmentation)
        least = min_area if min_area >= 1 else min_area * math.prod(segmentation["size"])
        if area == 0:
            masks.append(empty)
        elif area < least:
            masks.append("min_area")
        else:
            masks.append(Mask(segmentation, area, bbox, heat_mean, threshold))
    return masks


def stored_heatmap(row: Mapping[str, Any], order: HeatOrder) -> Float32[np.ndarray, "height width"]:
    """The heatmap of a row at the size of its image, upsampled as when its mask was made.

    Args:
        row: of the annotation table, with `heat`.
        order: what `schema.heat_order` says of the table.
    """
    transposed = stored_heat(row).transpose(1, 2)
    size = (row["width"], row["height"])
    (heat,) = legrad.heatmap(transposed, size, order=order)
    upright: np.ndarray = heat.T.numpy()
    return upright


def stored_heat(row: Mapping[str, Any]) -> Float[Tensor, "1 rows columns"]:
    """The patch-grid map of a row of the annotation table: heat 0..1, or the raw map itself.

    Raw, between `raw_min` and `raw_max`, where the table has both: where maps are cut off at 0.
    """
    grid = np.frombuffer(row["heat"], dtype=np.uint8).reshape(row["heat_shape"])
    heat = torch.from_numpy(grid.astype(np.float32) / 255)[None]
    if "raw_min" not in row:
        return heat
    low, high = float(row["raw_min"]), float(row["raw_max"])
    return heat * (high - low) + low


def made_of_heat(identity: Mapping[str, Any]) -> bool:
    """Whether a mask of a run is its own stored heat above a threshold, and nothing else.

    What was refined or has competed cannot be made again from the heat of one prompt.
    """
    mask = identity["mask"]
    alone = mask.get("refine", "none") == "none" and mask.get("overlap", "keep") == "keep"
    return alone and bool(mask.get("heat", True))


def encode(pixels: UInt8[np.ndarray, "height width mask"]) -> list[RLE]:
    """Run lengths of Fortran-ordered 0/1 masks."""
    encoded: Any = coco.encode(pixels)  # a list; the stubs know of single masks only
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def decode(segmentation: RLE) -> Bool[np.ndarray, "height width"]:
    """The pixels of an encoded mask."""
    rle: Any = segmentation  # the stubs want `counts` to be mutable to bytes
    pixels: np.ndarray = coco.decode(rle).astype(bool)
    return pixels


def stretched(
    mask: Bool[np.ndarray, "rows columns"], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """The mask at another size, by nearest pixel."""
    resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    return np.array(resized, dtype=bool)


def measure(segmentation: RLE) -> tuple[int, list[float]]:
    """Foreground pixels, and the tight box [x, y, width, height] around them."""
    rle: Any = segmentation
    return int(coco.area(rle)), coco.toBbox(rle).tolist()


def why_empty(
    raw: Float[Tensor, "map rows columns"],
    order: HeatOrder,
    exceeds: Bool[Tensor, " map"] | None = None,
) -> list[str]:
    """What it means where a map has no foreground.

    `not_finite`, `flat_map` (a constant, or nowhere above 0 where it is cut off there),
    `below_threshold`, or `overlapped`, where maps compete and others won all of its foreground.

    Args:
        raw: maps on the patch grid.
        order: of the steps from maps to heat.
        exceeds: whether a map's heat exceeds its threshold anywhere, if maps compete.
    """
    finite = raw.isfinite().all(2).all(1).tolist()
    flat = legrad.degenerate(raw, order=order).tolist()
    lost = [False] * len(raw) if exceeds is None else exceeds.tolist()
    return [
        "not_finite"
        if not is_finite
        else "flat_map"
        if is_flat
        else "overlapped"
        if is_lost
        else "below_threshold"
        for is_finite, is_flat, is_lost in zip(finite, flat, lost, strict=True)
    ]
