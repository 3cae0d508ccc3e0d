"""Masks in closed form against every pixel, of maps and levels that are made to break them.

A pixel may be on the other side only where its heat is within 1e-6 of the level; area, box and mean
heat have to be those of the mask's own pixels (`check`).
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from legrad import HeatOrder
from tests.pipeline.outputs.test_level_sets import check, heat_of, map_values

GRID, HEIGHT, WIDTH = 64, 3000, 5000
KINDS = ["ramp", "checkerboard", "stripes", "steps", "huge", "ridge", "lone cells"]


def broken(draw: st.DrawFn, shape: tuple[int, int, int]) -> torch.Tensor:
    """Maps with straight lines, ties, jumps, and numbers at the ends of their range."""
    kind = draw(st.sampled_from(["other", *KINDS]))
    count, rows, columns = shape
    y, x = torch.arange(rows)[:, None], torch.arange(columns)[None]
    if kind == "other":
        return map_values(draw, shape)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = torch.rand(shape, generator=generator)
    slopes = torch.randint(-3, 4, (2, count, 1, 1), generator=generator)
    if kind == "ramp":  # linear everywhere: whole rows of pixels are equal
        return (slopes[0] * y + slopes[1] * x).float()
    if kind == "checkerboard":
        return ((y + x) % 2).expand(shape).float()
    if kind == "stripes":
        return (y % 2 if draw(st.booleans()) else x % 2).expand(shape).float()
    if kind == "steps":  # plateaus of whole rows and columns
        return (noise[:, :, :1] * 3).floor() + (noise[:, :1] * 3).floor()
    if kind == "huge":
        return (noise - 0.5) * 1e37
    if kind == "ridge":  # ten decimal places of difference beside an edge
        return (noise > 0.5).float() + 1e-7 * noise
    return (noise > 0.97).float() - (noise < 0.03).float()


@st.composite
def adversarial(draw: st.DrawFn, pixels: int) -> tuple[Any, ...]:
    """Grids up to 64 × 64, images up to 5000 × 3000 (small ones as often as large ones)."""
    shape = (1, draw(st.integers(1, GRID)), draw(st.integers(1, GRID)))
    height = round(HEIGHT ** draw(st.floats(0, 1)))
    width = min(round(WIDTH ** draw(st.floats(0, 1))), max(1, pixels // height))
    order = draw(st.sampled_from(list(HeatOrder)))
    raw = broken(draw, shape)
    heat = heat_of(raw, height, width, order)[0].flatten().numpy()
    there = heat[draw(st.integers(0, heat.size - 1))]
    levels = [there, np.nextafter(there, 2), np.nextafter(there, -1), heat.max(), 0.0, 0.5, 1 / 3]
    level = float(np.clip(draw(st.sampled_from(levels)), 0, 1 - 1e-9))
    return raw, height, width, [level], order


@given(adversarial(pixels=100_000))
@settings(max_examples=200)
def test_no_pixel_is_on_the_wrong_side(case: tuple[Any, ...]) -> None:
    check(*case)


@pytest.mark.long
@given(adversarial(pixels=HEIGHT * WIDTH))
@settings(max_examples=10_000)
def test_no_pixel_of_ten_thousand_maps_is_on_the_wrong_side(case: tuple[Any, ...]) -> None:
    check(*case)
