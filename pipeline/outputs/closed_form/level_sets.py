"""Masks of bilinearly upsampled maps in closed form: no pixel of heat is ever made.

Down a column of pixels, an upsampled map is linear between two rows of its grid. So the pixels
above a level between these rows are one run, whose ends follow from the crossing of the level. For
a mask that takes width x rows numbers instead of width x height, and only the runs leave the
device.

In float64, so that a pixel is decided differently than by `pipeline.outputs.raster`, in float32,
only where its heat is within rounding of the level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.grid import Axis, knots_of, levels_of, normalised
from pipeline.outputs.closed_form.runs import joined
from pipeline.outputs.masks import Foreground, parts, why_empty

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
    for chunk in parts(len(raw), CHUNK_VALUES // (raw.shape[1] * width)):
        yield _level_sets(raw[chunk], down, across, thresholds[chunk], config, order)


def _level_sets(
    raw: Float[Tensor, "map rows columns"],
    down: Axis,
    across: Axis,
    thresholds: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder,
) -> Foreground:
    maps = normalised(raw, down, across, order)
    levels = levels_of(maps, down, across, thresholds, config)
    crossings = _cross(knots_of(maps, across, across.all), levels, down)
    runs, areas = joined(
        crossings.map[0::2],
        crossings.column[0::2],
        crossings.pixel[0::2],
        crossings.pixel[1::2],
        (len(raw), down.pixels, across.pixels),
    )
    means = crossings.sums / areas.clamp(min=1)
    return Foreground(
        heat_means=means.tolist(),
        thresholds=levels.tolist(),
        empty=why_empty(raw, order),
        encode=runs.encode,
    )


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
    knots: Float64[Tensor, "map width knots"], level: Float64[Tensor, " map"], down: Axis
) -> _Crossings:
    """The crossings of the level in maps at every column of pixels; see `knots_of`."""
    above = F.pad(knots > level[:, None, None], (1, 1))
    map_of, column, edge = (above[..., 1:] != above[..., :-1]).nonzero(as_tuple=True)
    cell = (edge - 1).clamp(0, down.cells - 1)
    knot = (map_of * knots.shape[1] + column) * knots.shape[2] + cell
    before, after = knots.flatten()[knot], knots.flatten()[knot + 1]
    first, last = down.first[cell], down.first[cell + 1]
    fraction = (level[map_of] - before) / (after - before)
    place = down.place(cell, fraction)
    rises = torch.arange(len(edge), device=edge.device) % 2 == 0  # they take turns
    inside = torch.where(rises, place.floor() + 1, place.ceil()).nan_to_num()
    inside = inside.clamp(0, down.pixels).long().clamp(first, last)
    pixel = torch.where(edge == 0, 0, torch.where(edge > down.cells, down.pixels, inside))

    whole = above[..., 1:-2] & above[..., 2:-1]
    passed = down.passed[down.first].diff()
    filled = knots[..., :-1] * (down.first.diff() - passed)
    filled += knots[..., 1:] * passed
    filled *= whole
    begin, end = torch.where(rises, pixel, first), torch.where(rises, last, pixel)
    some = before * (end - begin) + (after - before) * (down.passed[end] - down.passed[begin])
    some = some.masked_fill((edge == 0) | (edge > down.cells), 0)
    # On the CPU, where the order of a sum does not depend on chance.
    sums = filled.sum((1, 2)).cpu().index_add_(0, map_of.cpu(), some.cpu())
    return _Crossings(map_of, column, pixel, sums)
