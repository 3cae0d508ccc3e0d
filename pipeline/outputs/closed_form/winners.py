"""Masks of maps that compete for the pixels of their image, in closed form.

Within a column of pixels and a cell of the grid all maps are linear, so that the pixels where one
is above its level, and those where it is hotter than another one, are half-lines. What they have in
common is one run per map, column and cell.

In float64, so that a pixel is decided differently than by `pipeline.outputs.raster`, in float32,
only where two heats, or a heat and the level, are within rounding of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.grid import Axis, extremes, levels_of, normalised
from pipeline.outputs.closed_form.level_sets import CHUNK_VALUES
from pipeline.outputs.closed_form.runs import joined
from pipeline.outputs.masks import Foreground, why_empty


def winners(
    raw: Float[Tensor, "map rows columns"],
    height: int,
    width: int,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
    counts: Sequence[int] | None = None,
) -> Iterator[Foreground]:
    """Threshold maps where they are the hottest of their image, on the device they are on.

    Arguments and what it yields are those of `pipeline.outputs.thresholding.threshold_maps`; an
    image is never split.
    """
    down = Axis.of(height, raw.shape[1], raw.device)
    across = Axis.of(width, raw.shape[2], raw.device)
    most = CHUNK_VALUES // (raw.shape[1] * width)
    start = 0
    for images in _together([len(raw)] if counts is None else counts, most):
        chunk = slice(start, start := start + sum(images))
        yield _winners(raw[chunk], images, down, across, thresholds[chunk], config, order)


def _together(counts: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers of maps that have so many in sum at the most, or one that alone has more."""
    group: list[int] = []
    for count in filter(None, counts):
        if group and sum(group) + count > most:
            yield group
            group = []
        group.append(count)
    if group:
        yield group


def _winners(
    raw: Float[Tensor, "map rows columns"],
    images: Sequence[int],
    down: Axis,
    across: Axis,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder,
) -> Foreground:
    maps = normalised(raw, down, across, order)
    levels = levels_of(maps, down, across, thresholds, config)
    rivals = _Rivals.of(images, raw.device)
    # All maps of an image have to be there at once, but not all of its columns.
    step = max(1, CHUNK_VALUES // (len(raw) * down.cells))
    parts = [
        _intervals(maps, levels, rivals, down, across, columns)
        for columns in across.all.split(step)
    ]
    won = _Intervals.cat(parts, down, across)
    shape = (len(raw), down.pixels, across.pixels)
    runs, areas = joined(won.map, won.column, won.begin, won.end, shape)
    # On the CPU, where the order of a sum does not depend on chance.
    sums = torch.zeros(len(raw), dtype=torch.float64)
    sums.index_add_(0, won.map.cpu(), won.sum.cpu())
    exceeds = extremes(maps, down, across).amax((1, 2)) > levels
    return Foreground(
        heat_means=(sums / areas.clamp(min=1)).tolist(),
        thresholds=levels.tolist(),
        empty=why_empty(raw, order, exceeds),
        encode=runs.encode,
    )


@dataclass(frozen=True)
class _Rivals:
    """Which maps compete with one another: those of an image, which follow one another.

    Attributes:
        counts: maps of each image.
        image: of each map.
        first: of each map the first one of its image.
        count: of each map how many its image has.
    """

    counts: Sequence[int]
    image: Int64[Tensor, " map"]
    first: Int64[Tensor, " map"]
    count: Int64[Tensor, " map"]

    @classmethod
    def of(cls, counts: Sequence[int], device: torch.device) -> _Rivals:
        """Take the number of maps of each image, none of them 0."""
        each = torch.tensor(counts)
        image = torch.arange(len(each)).repeat_interleave(each)
        first = (each.cumsum(0) - each)[image]
        return cls(counts, image.to(device), first.to(device), each[image].to(device))

    def hottest(
        self, knots: Float64[Tensor, "map width knots"]
    ) -> Int64[Tensor, "image width knots"]:
        """The map that is the hottest of its image, the first of equals, everywhere."""
        starts = self.first.unique_consecutive().tolist()
        parts = zip(starts, knots.split_with_sizes(list(self.counts)), strict=True)
        return torch.stack([start + part.argmax(0) for start, part in parts])


@dataclass(frozen=True)
class _Intervals:
    """Pixels of a map in a column and a cell, from `begin` to before `end`, and their heat."""

    map: Int64[Tensor, " interval"]
    column: Int64[Tensor, " interval"]
    begin: Int64[Tensor, " interval"]
    end: Int64[Tensor, " interval"]
    sum: Float64[Tensor, " interval"]

    @classmethod
    def cat(cls, parts: Sequence[_Intervals], down: Axis, across: Axis) -> _Intervals:
        """Those of several strips of columns, in order of maps, columns and pixels."""
        if len(parts) == 1:
            return parts[0]
        rows = zip(*((p.map, p.column, p.begin, p.end, p.sum) for p in parts), strict=True)
        map_of, column, begin, end, sums = (torch.cat(row) for row in rows)
        order = ((map_of * across.pixels + column) * down.pixels + begin).argsort()
        return cls(map_of[order], column[order], begin[order], end[order], sums[order])


def _intervals(
    maps: Float64[Tensor, "map rows columns"],
    levels: Float64[Tensor, " map"],
    rivals: _Rivals,
    down: Axis,
    across: Axis,
    columns: Int64[Tensor, " some"],
) -> _Intervals:
    """What every map wins above its level, in some columns of pixels."""
    values = across.at(maps.transpose(1, 2), columns)
    knots = torch.cat([values, values[..., -1:]], 2)  # after the last row, nothing changes
    hottest = rivals.hottest(knots)
    # Whoever is the hottest at both ends of a cell is so all the way.
    settled = hottest[..., :-1] == hottest[..., 1:]
    numbers = torch.arange(len(maps), device=maps.device)
    mine = hottest[rivals.image, :, :-1] == numbers[:, None, None]
    above = knots > levels[:, None, None]
    alive = (above[..., :-1] | above[..., 1:]) & (mine | ~settled[rivals.image])
    map_of, column, cell = alive.nonzero(as_tuple=True)
    before, after = knots[map_of, column, cell], knots[map_of, column, cell + 1]
    strictly = torch.zeros(1, dtype=torch.bool, device=maps.device)
    begin, end = down.half_line(cell, before, after, levels[map_of], strictly)

    (open_,) = (~settled[rivals.image[map_of], column, cell]).nonzero(as_tuple=True)
    of, where, place = map_of[open_], column[open_], cell[open_]
    nothing = levels.new_zeros(1)
    for number in range(max(rivals.counts)):
        # Where an image has fewer maps, each competes with itself, and wins as all do at a tie.
        other = torch.where(number < rivals.count[of], rivals.first[of] + number, of)
        lead = before[open_] - knots[other, where, place]
        later = after[open_] - knots[other, where, place + 1]
        wins_from, wins_to = down.half_line(place, lead, later, nothing, of <= other)
        begin[open_] = torch.maximum(begin[open_], wins_from)
        end[open_] = torch.minimum(end[open_], wins_to)

    (left,) = (end > begin).nonzero(as_tuple=True)
    begin, end, before, after = begin[left], end[left], before[left], after[left]
    sums = before * (end - begin) + (after - before) * (down.passed[end] - down.passed[begin])
    return _Intervals(map_of[left], columns[column[left]], begin, end, sums)
