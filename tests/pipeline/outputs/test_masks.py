"""Masks of heatmaps, against slow and literal ways to make them."""

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

import legrad
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.level_sets import level_sets
from pipeline.outputs.masks import Mask, decode, encode, encode_masks, measure
from pipeline.outputs.raster import rasters
from pipeline.outputs.thresholding import threshold_maps


def masks_of(
    raw: torch.Tensor,
    height: int,
    width: int,
    config: MaskConfig | None = None,
    thresholds: list[float | None] | None = None,
) -> list[Mask | str]:
    config = config or MaskConfig()
    own = thresholds or [None] * len(raw)
    parts = threshold_maps(raw, height, width, own, config)
    return [mask for part in parts for mask in encode_masks(part, config.min_area)]


def box_of(pixels: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(pixels)
    top, left = rows.min(), columns.min()
    return [left, top, columns.max() - left + 1, rows.max() - top + 1]


# --- against the literal way


@pytest.mark.parametrize("size", [(60, 80), (81, 50), (7, 300), (1, 1), (375, 500)])
@pytest.mark.parametrize("grid", [(12, 12), (5, 9), (1, 4)])
def test_run_lengths_are_those_of_the_map_that_was_not_turned(
    grid: tuple[int, int], size: tuple[int, int]
) -> None:
    raw = torch.rand(3, *grid, generator=torch.Generator().manual_seed(sum(size)))
    heats = legrad.heatmap(raw, size=size).numpy()
    for heat, mask in zip(heats, masks_of(raw, *size), strict=True):
        pixels = np.asfortranarray(heat > 0.5, dtype=np.uint8)
        if not pixels.any():  # all that is left of a map on one pixel
            assert mask in ("flat_map", "below_threshold")
            continue
        assert isinstance(mask, Mask)
        theirs = coco.encode(pixels)
        assert mask.segmentation == {"size": list(size), "counts": theirs["counts"].decode()}
        assert mask.area == pixels.sum()
        assert mask.bbox == box_of(pixels)
        assert mask.heat_mean == pytest.approx(heat[heat > 0.5].mean(), rel=1e-5)
        assert mask.threshold == 0.5


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_encoding_and_measuring_round_trip(pixels: np.ndarray) -> None:
    (segmentation,) = encode(np.asfortranarray(pixels[..., None], dtype=np.uint8))
    assert segmentation["size"] == list(pixels.shape)
    np.testing.assert_array_equal(decode(segmentation), pixels)
    area, box = measure(segmentation)
    assert area == pixels.sum() and isinstance(area, int)
    if area:
        assert box == box_of(pixels)
    assert all(isinstance(value, float) for value in box)


def test_a_mask_by_hand() -> None:
    raw = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 3.0, 0.0], [0.0, 4.0, 2.0, 0.0]]])
    (mask,) = masks_of(raw, 3, 4)
    # Of 0, ¼, ½, ¾ and 1 only ¾ and 1 exceed ½. Down the columns: 5 off, 1 on, 1 off, 1 on, 4 off.
    assert isinstance(mask, Mask)
    assert decode(mask.segmentation).astype(int).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 1, 0, 0],
    ]
    assert (mask.area, mask.bbox, mask.heat_mean) == (2, [1, 1, 2, 2], 0.875)


# --- thresholds


RAMP = torch.arange(5.0).view(1, 1, 5)  # heat 0, ¼, ½, ¾, 1


def areas(config: MaskConfig, *thresholds: float | None) -> list[int]:
    raw = RAMP.expand(max(1, len(thresholds)), 1, 5)
    found = masks_of(raw, 1, 5, config, list(thresholds) or None)
    return [mask.area for mask in found if isinstance(mask, Mask)]


@pytest.mark.parametrize(
    ("threshold", "area"), [(0.0, 4), (0.2, 4), (0.25, 3), (0.5, 2), (0.75, 1)]
)
def test_foreground_exceeds_the_threshold(threshold: float, area: int) -> None:
    assert areas(MaskConfig(threshold=threshold)) == [area]


def test_a_class_may_have_a_threshold_of_its_own() -> None:
    assert areas(MaskConfig(threshold=0.5), None, 0.1, 0.75) == [2, 4, 1]


def test_the_mean_rule_thresholds_every_map_at_its_own_mean() -> None:
    raw = torch.tensor([[[0.0, 0.0, 0.0, 1.0]], [[0.0, 1.0, 1.0, 1.0]]])
    first, second = masks_of(raw, 1, 4, MaskConfig(rule="mean"), [0.9, None])
    assert isinstance(first, Mask) and isinstance(second, Mask)
    assert (first.threshold, first.area) == (0.25, 1)
    assert (second.threshold, second.area) == (0.75, 3)


@pytest.mark.parametrize(
    ("least", "kept"),
    [(0.0, True), (2.0, True), (2.5, False), (3.0, False), (0.4, True), (0.41, False)],
)
def test_small_masks_are_dropped_by_pixels_or_by_fraction(least: float, kept: bool) -> None:
    (mask,) = masks_of(RAMP, 1, 5, MaskConfig(min_area=least))  # two pixels of five
    assert isinstance(mask, Mask) if kept else mask == "min_area"


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0.0, "flat_map"), (3.5, "flat_map"), (math.nan, "not_finite"), (math.inf, "not_finite")],
)
@pytest.mark.parametrize(
    "config", [MaskConfig(), MaskConfig(rule="mean"), MaskConfig(threshold=0.0)]
)
def test_a_flat_map_has_no_mask(value: float, reason: str, config: MaskConfig) -> None:
    assert masks_of(torch.full((1, 3, 3), value), 20, 30, config) == [reason]


def test_a_map_that_is_normalised_first_may_stay_below_the_threshold() -> None:
    raw = torch.zeros(1, 4, 4)
    raw[0, 1, 1] = 1.0
    config, first = MaskConfig(threshold=0.95), legrad.HeatOrder.NORMALISE_UPSAMPLE
    (after,) = encode_masks(*threshold_maps(raw, 8, 8, [None], config), min_area=0.0)
    (before,) = encode_masks(*threshold_maps(raw, 8, 8, [None], config, first), min_area=0.0)
    assert isinstance(after, Mask) and before == "below_threshold"


def test_a_map_that_is_cut_off_at_0_is_flat_where_nothing_is_above() -> None:
    raw = torch.tensor([[[-3.0, -1.0]], [[-3.0, 1.0]]])
    order = legrad.HeatOrder.UPSAMPLE_CLIP_NORMALISE
    parts = threshold_maps(raw, 1, 4, [None, None], MaskConfig(), order)
    flat, mask = (mask for part in parts for mask in encode_masks(part, min_area=0.0))
    assert flat == "flat_map"
    assert isinstance(mask, Mask) and mask.area == 1


# --- memory


@pytest.mark.parametrize("rule", ["fixed", "mean"])
@pytest.mark.parametrize(
    ("make", "limit", "size"),
    [(rasters, "CHUNK_PIXELS", 50 * 40), (level_sets, "CHUNK_VALUES", 12 * 40)],
)
def test_parts_change_nothing(
    rule: str, make: Any, limit: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = torch.rand(7, 12, 12, generator=torch.Generator().manual_seed(0))
    raw[3] = 1.0
    thresholds = [None, 0.1, 0.2, 0.3, None, 0.9, 0.5]
    arguments = (raw, 50, 40, thresholds, MaskConfig(rule=rule))
    module = sys.modules[make.__module__]
    whole = list(make(*arguments))
    monkeypatch.setattr(module, limit, 2 * size)
    parts = list(make(*arguments))
    assert (len(whole), len(parts)) == (1, 4)
    together = [mask for part in parts for mask in encode_masks(part, 0.0)]
    assert together == encode_masks(whole[0], 0.0)
    monkeypatch.setattr(module, limit, 1)  # one map does not fit: it is taken all the same
    assert len(list(make(*arguments))) == 7


def test_no_maps_have_no_masks() -> None:
    assert masks_of(torch.empty(0, 12, 12), 50, 40) == []
