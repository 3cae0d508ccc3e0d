"""Masks of maps that compete for the pixels of their image, in closed form.

Within a column of pixels and a cell of the grid all maps are linear, so that the pixels where one
is above its level, and those where it is hotter than another one, are half-lines. What they have in
common is one run per map, column and cell. Few maps of many are the hottest anywhere in a cell, and
only those are compared, each with each.

In float64, so that a pixel is decided differently than by `pipeline.outputs.raster`, in float32,
only where two heats, or a heat and the level, are within rounding of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.grid import Axis, extremes, knots_of, levels_of, normalised
from pipeline.outputs.closed_form.level_sets import CHUNK_VALUES
from pipeline.outputs.closed_form.runs import joined
from pipeline.outputs.masks import Foreground, parts, why_empty

ROUNDING = 1e-12
"""Heat by which a map may miss the hottest one and still be compared with it."""


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
    # All maps of an image have to be there at once, but not all of its columns.
    strips = parts(across.pixels, CHUNK_VALUES // (len(raw) * down.cells))
    of_strips = [
        _intervals(maps, levels, images, down, across, across.all[strip]) for strip in strips
    ]
    won = _Intervals.cat(of_strips, down, across)
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
    images: Sequence[int],
    down: Axis,
    across: Axis,
    columns: Int64[Tensor, " some"],
) -> _Intervals:
    """What every map wins above its level, in some columns of pixels."""
    knots = knots_of(maps, across, columns)
    of_images = zip(
        knots.split_with_sizes(list(images)), levels.split_with_sizes(list(images)), strict=True
    )
    contenders = torch.cat([_contenders(*of_image) for of_image in of_images])
    map_of, column, cell = contenders.nonzero(as_tuple=True)
    before, after = knots[map_of, column, cell], knots[map_of, column, cell + 1]
    strictly = torch.zeros(1, dtype=torch.bool, device=maps.device)
    begin, end = down.half_line(cell, before, after, levels[map_of], strictly)

    image = torch.arange(len(images)).repeat_interleave(torch.tensor(images)).to(maps.device)
    place = (image[map_of] * len(columns) + column) * down.cells + cell
    place, order = place.sort(stable=True)  # the contenders for a cell, in the order of their maps
    nothing = levels.new_zeros(1)
    for apart in range(1, max(images)):
        (pair,) = (place[apart:] == place[:-apart]).nonzero(as_tuple=True)
        if not len(pair):
            break
        one, other = order[pair], order[pair + apart]
        lead, later = before[one] - before[other], after[one] - after[other]
        for who, sign, wins_ties in ((one, 1, ~strictly), (other, -1, strictly)):
            won = down.half_line(cell[who], sign * lead, sign * later, nothing, wins_ties)
            begin[who] = torch.maximum(begin[who], won[0])
            end[who] = torch.minimum(end[who], won[1])

    (left,) = (end > begin).nonzero(as_tuple=True)
    begin, end, before, after = begin[left], end[left], before[left], after[left]
    sums = before * (end - begin) + (after - before) * (down.passed[end] - down.passed[begin])
    return _Intervals(map_of[left], columns[column[left]], begin, end, sums)


def _contenders(
    knots: Float64[Tensor, "map width knots"], levels: Float64[Tensor, " map"]
) -> Bool[Tensor, "map width rows"]:
    """Which maps of an image may be the hottest somewhere in a cell that is above some level.

    Where the line of the map that is the hottest at one end of a cell meets that of the hottest at
    the other end, whoever is below both is so everywhere: it is below where they begin and end,
    and between these three points all are straight.
    """
    hottest, who = knots.max(0)  # the first of equals
    start, stop = knots[..., :-1], knots[..., 1:]
    first, last = who[None, :, :-1], who[None, :, 1:]
    falls_to = stop.gather(0, first)[0]
    lead = hottest[:, :-1] - start.gather(0, last)[0]
    gain = hottest[:, 1:] - falls_to
    meet = (lead / (lead + gain)).nan_to_num()  # one map, or equal ones, at both ends
    height = torch.lerp(hottest[:, :-1], falls_to, meet)
    contend = torch.lerp(start, stop, meet) >= height - ROUNDING
    contend.scatter_(0, first, value=True).scatter_(0, last, value=True)
    above = hottest > levels.min()
    return contend & (above[:, :-1] | above[:, 1:])
