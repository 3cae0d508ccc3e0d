"""Masks in closed form against every pixel's heat, in float64."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.level_sets import applies, level_sets
from pipeline.outputs.masks import Mask, decode, encode_masks
from pipeline.outputs.raster import rasters
from pipeline.outputs.thresholding import threshold_maps

NEAR = 1e-6
"""Heat so near to the level may fall on either side."""
ORDERS = list(HeatOrder)


def heat_of(raw: torch.Tensor, height: int, width: int, order: HeatOrder) -> torch.Tensor:
    """Heat of every pixel in float64, step by step."""

    def upsample(maps: torch.Tensor) -> torch.Tensor:
        return F.interpolate(maps[:, None], (height, width), mode="bilinear")[:, 0]

    def normalise(maps: torch.Tensor) -> torch.Tensor:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        flat = high - low <= 1e-12 * high.abs().clamp(min=1)
        return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, high - low))

    maps = raw.double()
    if order is HeatOrder.NORMALISE_UPSAMPLE:
        return upsample(normalise(maps))
    maps = upsample(maps)
    return normalise(maps.clamp(min=0) if order.clips else maps)


def check(
    raw: torch.Tensor,
    height: int,
    width: int,
    thresholds: list[float],
    order: HeatOrder,
    rule: str = "fixed",
) -> None:
    config = MaskConfig(rule=rule)
    parts = list(level_sets(raw, height, width, thresholds, config, order))
    made = [mask for part in parts for mask in encode_masks(part, 0.0)]
    heats = heat_of(raw, height, width, order)
    levels = heats.mean((1, 2)).tolist() if rule == "mean" else thresholds
    for heat, mask, level in zip(heats.numpy(), made, levels, strict=True):
        certain = np.abs(heat - level) > NEAR
        expected = heat > level
        if isinstance(mask, str):
            assert not (expected & certain).any()
            continue
        pixels = decode(mask.segmentation)
        np.testing.assert_array_equal(pixels[certain], expected[certain])
        assert mask.area == pixels.sum()
        rows, columns = np.nonzero(pixels)
        assert mask.bbox == [
            *(columns.min(), rows.min()),
            *(np.ptp(columns) + 1, np.ptp(rows) + 1),
        ]
        assert mask.heat_mean == pytest.approx(heat[pixels].mean(), abs=1e-9)
        assert mask.threshold == pytest.approx(level, abs=1e-6)


def map_values(draw: st.DrawFn, shape: tuple[int, int, int]) -> torch.Tensor:
    """Smooth, in plateaus of a few levels, nearly flat, or of one peak."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["any", "plateaus", "nearly flat", "peak", "signed"]))
    if kind == "plateaus":
        return torch.randint(0, draw(st.integers(1, 4)), shape, generator=generator).float()
    if kind == "nearly flat":
        return 1 + 1e-5 * torch.rand(shape, generator=generator)
    if kind == "peak":
        maps = torch.zeros(shape)
        maps[:, draw(st.integers(0, shape[1] - 1)), draw(st.integers(0, shape[2] - 1))] = 1.0
        return maps
    return torch.rand(shape, generator=generator) - (0.5 if kind == "signed" else 0.0)


@st.composite
def cases(draw: st.DrawFn, grid: int = 64, side: int = 200) -> tuple[Any, ...]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, grid)), draw(st.integers(1, grid)))
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    order = draw(st.sampled_from(ORDERS))
    raw = map_values(draw, shape)
    heat = heat_of(raw, height, width, order)
    thresholds = []
    for values in heat:
        at = values.flatten()[draw(st.integers(0, values.numel() - 1))].item()
        chosen = draw(st.sampled_from([at, 0.0, 0.25, 0.5, 0.99]))
        thresholds.append(min(chosen, 0.999))
    return raw, height, width, thresholds, order


@given(cases())
@settings(max_examples=150)
def test_every_pixel_is_on_its_side_of_the_level(case: tuple[Any, ...]) -> None:
    check(*case)


@given(cases(grid=20, side=60))
@settings(max_examples=60)
def test_every_pixel_is_on_its_side_of_the_mean(case: tuple[Any, ...]) -> None:
    if applies(MaskConfig(rule="mean"), case[-1]):
        check(*case, rule="mean")


@pytest.mark.slow
@given(cases(side=900))
@settings(max_examples=100)
def test_large_images(case: tuple[Any, ...]) -> None:
    check(*case)


@pytest.mark.parametrize(("height", "width"), [(3000, 5000), (1, 5000), (3000, 1)])
def test_a_photograph(height: int, width: int) -> None:
    raw = torch.rand(1, 16, 24, generator=torch.Generator().manual_seed(0))
    check(raw, height, width, [0.5], HeatOrder.UPSAMPLE_NORMALISE)


@pytest.mark.parametrize("order", ORDERS)
def test_the_raster_path_says_the_same(order: HeatOrder) -> None:
    raw = torch.randn(6, 12, 12, generator=torch.Generator().manual_seed(1))
    raw[2], raw[3, 0, 0] = 1.0, torch.nan
    raw[4] = -1 - raw[4].abs()
    arguments = (raw, 90, 70, [None] * 6, MaskConfig(threshold=0.45), order)
    pairs = [
        [mask for part in make(*arguments) for mask in encode_masks(part, 5.0)]
        for make in (level_sets, rasters)
    ]
    for ours, theirs in zip(*pairs, strict=True):
        if isinstance(theirs, str):
            assert ours == theirs
            continue
        assert isinstance(ours, Mask)
        assert (ours.segmentation, ours.area, ours.bbox) == (
            *(theirs.segmentation, theirs.area, theirs.bbox),
        )
        assert ours.heat_mean == pytest.approx(theirs.heat_mean, rel=1e-5)
        assert ours.threshold == pytest.approx(theirs.threshold)


def test_what_has_no_closed_form_takes_every_pixel() -> None:
    raw = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(2))
    order, config = HeatOrder.UPSAMPLE_CLIP_NORMALISE, MaskConfig(rule="mean")
    assert not applies(config, order)
    (part,) = threshold_maps(raw, 20, 20, [None], config, order)
    (mask,) = encode_masks(part, 0.0)
    (heat,) = legrad.heatmap(raw, (20, 20), order=order).numpy()
    assert isinstance(mask, Mask)
    np.testing.assert_array_equal(decode(mask.segmentation), heat > heat.mean())
