"""Maps on their grid, and how the pixels of an image lie between its cells."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig


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

    def place(
        self, cell: Int64[Tensor, " point"], fraction: Float64[Tensor, " point"]
    ) -> Float64[Tensor, " point"]:
        """Where a point on the way from a cell to the next one is, as a number of pixels."""
        return (fraction + cell + 0.5) * (self.pixels / self.cells) - 0.5

    def half_line(
        self,
        cell: Int64[Tensor, " point"],
        before: Float64[Tensor, " point"],
        after: Float64[Tensor, " point"],
        level: Float64[Tensor, " #point"],
        or_at: Bool[Tensor, " #point"],
    ) -> tuple[Int64[Tensor, " point"], Int64[Tensor, " point"]]:
        """The pixels of a cell at which a value that is linear there is above a level.

        Args:
            cell: of the grid.
            before: the value at its centre.
            after: at the centre of the next one.
            level: what is to be exceeded.
            or_at: whether a value that is equal to the level will do.

        Returns:
            The first pixel, and the one after the last; the same where there is none.
        """
        starts = (before > level) | ((before == level) & or_at)
        ends = (after > level) | ((after == level) & or_at)
        place = self.place(cell, (level - before) / (after - before))
        turn = torch.where((ends & ~starts) ^ or_at, place.floor() + 1, place.ceil()).nan_to_num()
        first, last = self.first[cell], self.first[cell + 1]
        pixel = turn.clamp(0, self.pixels).long().clamp(first, last)
        begin = torch.where(starts, first, torch.where(ends, pixel, last))
        return begin, torch.where(ends | ~starts, last, pixel)

    def at(
        self, maps: Float64[Tensor, "... cells rest"], pixels: Int64[Tensor, " some"]
    ) -> Float64[Tensor, "... some rest"]:
        """Maps at some pixels of this axis, which is their last but one."""
        lower, fraction = self.lower[pixels], self.fraction[pixels, None]
        upper = (lower + 1).clamp_(max=self.cells - 1)
        rows = maps.contiguous()  # so that a row is copied as a whole
        return torch.lerp(rows.index_select(-2, lower), rows.index_select(-2, upper), fraction)

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


def extremes(
    maps: Float64[Tensor, "map rows columns"], down: Axis, across: Axis
) -> Float64[Tensor, "map some_rows some_columns"]:
    """Maps at the corners of all cells: the least and the largest pixel are among them."""
    corners = across.at(maps.transpose(1, 2), across.corners).transpose(1, 2)
    return down.at(corners, down.corners)


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
    pixels = extremes(maps, down, across)
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    if order.clips:
        low, high = low.clamp(min=0), high.clamp(min=0)
    flat = legrad.degenerate(pixels, order=order)[:, None, None]
    return ((maps - low) / (high - low)).masked_fill(flat, 0)


def knots_of(
    maps: Float64[Tensor, "map rows columns"], across: Axis, columns: Int64[Tensor, " some"]
) -> Float64[Tensor, "map some knots"]:
    """Maps in some columns of pixels, at the rows of the grid and once more at the last one.

    Between two knots a map is linear; after the last row, nothing changes.
    """
    closed = torch.cat([maps, maps[:, -1:]], 1)
    return across.at(closed.transpose(1, 2), columns)


def levels_of(
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
