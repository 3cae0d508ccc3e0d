"""Masks of bilinearly upsampled maps in closed form: no pixel of heat is ever made.

Down a column of pixels, an upsampled map is linear between two rows of its grid. So the pixels
above a level between these rows are one run, whose ends follow from the crossing of the level. For
a mask that takes width x rows numbers instead of width x height, and only the runs leave the
device.

In float64, so that a pixel is decided differently than by `pipeline.outputs.raster`, in float32,
only where its heat is within rounding of the level.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from pycocotools import mask as coco
from torch import Tensor

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.masks import RLE, Foreground, why_empty

CHUNK_VALUES = 4 << 20
"""Grid rows x pixel columns of the maps at once (some ten values of 8 bytes each)."""


def applies(config: MaskConfig, order: HeatOrder) -> bool:
    """Whether there is a closed form: the mean of what is cut off at 0 has none."""
    return not (config.rule == "mean" and order.clips)


def level_sets(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
) -> Iterator[Foreground]:
    """Threshold the maps of one image, on the device they are on.

    Arguments and what it yields are those of `pipeline.outputs.thresholding.threshold_maps`.
    """
    down = Axis.of(height, raw.shape[1], raw.device)
    across = Axis.of(width, raw.shape[2], raw.device)
    step = max(1, CHUNK_VALUES // (raw.shape[1] * width))
    for start in range(0, len(raw), step):
        chunk = slice(start, start + step)
        yield _level_sets(raw[chunk], down, across, thresholds[chunk], config, order)


@dataclass(frozen=True)
class Axis:
    """How the pixels along one side lie between the cells of the grid.

    Attributes:
        cells: of the grid.
        lower: of each pixel the cell before it.
        fraction: how far each pixel is on its way to the next cell, 0 to 1.
        first: of each cell its first pixel; one more for the end.
        passed: sum of the fractions of all pixels before each one; one more for the end.
    """

    cells: int
    lower: Int64[Tensor, " pixel"]
    fraction: Float64[Tensor, " pixel"]
    first: Int64[Tensor, " bound"]
    passed: Float64[Tensor, " pixel_bound"]

    @classmethod
    @functools.lru_cache(maxsize=64)
    def of(cls, pixels: int, cells: int, device: torch.device) -> Axis:
        """As `torch.nn.functional.interpolate` has it without `align_corners`.

        Made on the CPU, where sums do not depend on chance.
        """
        centres = torch.arange(pixels, dtype=torch.float64).add_(0.5)
        place = centres.mul_(cells / pixels).sub_(0.5).clamp_(min=0)
        lower = place.long()
        fraction = place.sub_(lower)
        fraction[lower == cells - 1] = 0  # there is no next cell
        return cls(
            cells=cells,
            lower=lower.to(device),
            fraction=fraction.to(device),
            first=torch.searchsorted(lower, torch.arange(cells + 1)).to(device),
            passed=torch.cat([fraction.new_zeros(1), fraction.cumsum(0)]).to(device),
        )

    @property
    def pixels(self) -> int:
        """How many there are."""
        return len(self.lower)

    @property
    def corners(self) -> Int64[Tensor, " corner"]:
        """The pixels that come first or last in a cell: between them nothing is extreme."""
        ends = torch.cat([self.first[:-1], self.first[1:] - 1])
        return ends.clamp_(0, self.pixels - 1)

    def at(
        self, maps: Float64[Tensor, "... cells rest"], pixels: Int64[Tensor, " some"]
    ) -> Float64[Tensor, "... some rest"]:
        """Maps at some pixels of this axis, which is their last but one."""
        lower, fraction = self.lower[pixels], self.fraction[pixels, None]
        upper = (lower + 1).clamp_(max=self.cells - 1)
        return torch.lerp(maps[..., lower, :], maps[..., upper, :], fraction)

    @functools.cached_property
    def matrix(self) -> Float[Tensor, "pixel cells"]:
        """What every pixel takes of every cell, in float32."""
        upper = (self.lower + 1).clamp_(max=self.cells - 1)
        made = self.fraction.new_zeros(self.pixels, self.cells)
        made[self.all, self.lower] = 1 - self.fraction
        made[self.all, upper] += self.fraction
        return made.float()

    @property
    def all(self) -> Int64[Tensor, " pixel"]:
        """Every pixel."""
        return torch.arange(self.pixels, device=self.lower.device)

    def mean(self, maps: Float64[Tensor, "... cells"]) -> Float64[Tensor, ...]:
        """The mean of maps over all pixels of this axis, their last."""
        passed = self.passed[self.first].diff()
        weights = self.first.diff() - passed  # what the pixels after a cell take of it,
        weights[1:] += passed[:-1]  # and those before it
        # No matrix product: its rounding would depend on how many maps there are.
        return (maps * weights).sum(-1) / self.pixels


def _level_sets(
    raw: Float[Tensor, "map rows columns"],
    down: Axis,
    across: Axis,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder,
) -> Foreground:
    maps = normalised(raw, down, across, order)
    levels = _levels(maps, down, across, thresholds, config)
    crossings = _cross(across.at(maps.transpose(1, 2), across.all), levels, down)
    runs, areas = _runs(crossings, len(raw), down.pixels, across.pixels)
    means = crossings.sums / areas.clamp(min=1)
    return Foreground(
        heat_means=means.tolist(),
        thresholds=levels.tolist(),
        empty=why_empty(raw, order),
        encode=runs.encode,
    )


def normalised(
    raw: Float[Tensor, "map rows columns"], down: Axis, across: Axis, order: HeatOrder
) -> Float64[Tensor, "map rows columns"]:
    """Maps on the grid whose upsampling is the heat; where that is below 0, heat is 0.

    What is subtracted and divided by after upsampling may as well be before: both are linear. And
    the least and the largest pixel are among the corners of cells.
    """
    maps = raw.double().masked_fill(legrad.degenerate(raw)[:, None, None], 0)
    if order is HeatOrder.NORMALISE_UPSAMPLE:
        return legrad.minmax(maps)
    corners = across.at(maps.transpose(1, 2), across.corners).transpose(1, 2)
    pixels = down.at(corners, down.corners)
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    if order.clips:
        low, high = low.clamp(min=0), high.clamp(min=0)
    flat = legrad.degenerate(pixels, order=order)[:, None, None]
    return ((maps - low) / (high - low)).masked_fill(flat, 0)


def _levels(
    maps: Float64[Tensor, "map rows columns"],
    down: Axis,
    across: Axis,
    thresholds: Sequence[float | None],
    config: MaskConfig,
) -> Float64[Tensor, " map"]:
    """The threshold of each map, as heat."""
    if config.rule == "mean":
        return down.mean(across.mean(maps))
    return maps.new_tensor(config.levels(thresholds))


@dataclass(frozen=True)
class _Crossings:
    """Where columns of pixels go above the level, or back, in the order of their pixels.

    In every column they take turns, and a column that begins or ends above the level does so there.

    Attributes:
        map: of each crossing.
        column: of each crossing.
        pixel: the first one that is above, or the first that no longer is.
        sums: of the values above the level, per map.
    """

    map: Int64[Tensor, " crossing"]
    column: Int64[Tensor, " crossing"]
    pixel: Int64[Tensor, " crossing"]
    sums: Float64[Tensor, " map"]


def _cross(
    columns: Float64[Tensor, "map width rows"], level: Float64[Tensor, " map"], down: Axis
) -> _Crossings:
    """The crossings of the level in maps at every column of pixels and every row of the grid."""
    knots = torch.cat([columns, columns[..., -1:]], 2)  # after the last row, nothing changes
    above = F.pad(knots > level[:, None, None], (1, 1))
    map_of, column, edge = (above[..., 1:] != above[..., :-1]).nonzero(as_tuple=True)
    cell = (edge - 1).clamp(0, down.cells - 1)
    before, after = knots[map_of, column, cell], knots[map_of, column, cell + 1]
    first, last = down.first[cell], down.first[cell + 1]
    fraction = (level[map_of] - before) / (after - before)
    place = (fraction + cell + 0.5) * (down.pixels / down.cells) - 0.5
    rises = above[map_of, column, edge + 1]
    inside = torch.where(rises, place.floor() + 1, place.ceil()).nan_to_num()
    inside = inside.clamp(0, down.pixels).long().clamp(first, last)
    pixel = torch.where(edge == 0, 0, torch.where(edge > down.cells, down.pixels, inside))

    whole = above[..., 1:-2] & above[..., 2:-1]
    passed = down.passed[down.first].diff()
    filled = (knots[..., :-1] * (down.first.diff() - passed) + knots[..., 1:] * passed) * whole
    begin, end = torch.where(rises, pixel, first), torch.where(rises, last, pixel)
    some = before * (end - begin) + (after - before) * (down.passed[end] - down.passed[begin])
    some = some.masked_fill((edge == 0) | (edge > down.cells), 0)
    # On the CPU, where the order of a sum does not depend on chance.
    sums = filled.sum((1, 2)).cpu().index_add_(0, map_of.cpu(), some.cpu())
    return _Crossings(map_of, column, pixel, sums)


@dataclass(frozen=True)
class _Runs:
    """Runs of foreground down the columns, of several maps one after the other.

    `starts` and `ends` (exclusive) are pixels down the columns; where map m begins and ends in
    them, `splits` says.
    """

    height: int
    width: int
    starts: Int64[np.ndarray, " run"]
    ends: Int64[np.ndarray, " run"]
    splits: Int64[np.ndarray, " split"]

    def encode(self) -> list[RLE]:
        """COCO's run lengths of every map."""
        size = [self.height, self.width]
        encoded = []
        for begin, end in zip(self.splits[:-1], self.splits[1:], strict=True):
            bounds = np.empty(2 * (end - begin) + 2, np.int64)
            bounds[0], bounds[-1] = 0, self.height * self.width
            bounds[1:-1:2], bounds[2:-1:2] = self.starts[begin:end], self.ends[begin:end]
            counts = np.diff(bounds)
            if counts[-1] == 0 and len(counts) > 1:
                counts = counts[:-1]
            plain: Any = {"size": size, "counts": counts}
            rle: Any = coco.frPyObjects(plain, self.height, self.width)
            encoded.append(RLE(size=size, counts=rle["counts"].decode("ascii")))
        return encoded


def _runs(
    crossings: _Crossings, count: int, height: int, width: int
) -> tuple[_Runs, Int64[Tensor, " map"]]:
    """The runs between crossings, those that touch put together, and the area of each map."""
    apart = height * width + 1  # so that no map touches the next
    place = crossings.map * apart + crossings.column * height + crossings.pixel
    starts, ends = place[0::2], place[1::2]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    is_new = torch.ones_like(starts, dtype=torch.bool)
    is_new[1:] = starts[1:] != ends[:-1]
    starts, ends = starts[is_new].cpu(), ends[is_new.roll(-1)].cpu()
    maps = torch.arange(count + 1) * apart
    splits = torch.searchsorted(starts, maps)
    areas = torch.cat([starts.new_zeros(1), (ends - starts).cumsum(0)])[splits].diff()
    moved = maps[:-1].repeat_interleave(splits.diff())
    parts = (part.numpy() for part in (starts - moved, ends - moved, splits))
    return _Runs(height, width, *parts), areas
