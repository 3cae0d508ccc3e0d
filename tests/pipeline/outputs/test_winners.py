"""Masks of maps that compete, against a literal way in float64 and by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form import winners as module
from pipeline.outputs.closed_form.level_sets import applies, level_sets
from pipeline.outputs.closed_form.winners import winners
from pipeline.outputs.masks import Mask, decode, encode_masks
from pipeline.outputs.raster import rasters
from pipeline.outputs.thresholding import threshold_maps
from tests.pipeline.outputs.test_level_sets import NEAR, ORDERS, heat_of, map_values

WINNER = MaskConfig(overlap="winner")


def masks_of(make: Any, *arguments: Any, min_area: float = 0.0) -> list[Mask | str]:
    return [mask for part in make(*arguments) for mask in encode_masks(part, min_area)]


def pixels_of(mask: Mask | str, height: int, width: int) -> np.ndarray:
    empty = np.zeros((height, width), dtype=bool)
    return decode(mask.segmentation) if isinstance(mask, Mask) else empty


def expected_of(
    heats: np.ndarray, levels: list[float], near: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What each map of an image wins, and where that is beyond doubt; equal maps do tie."""
    wins, certain = [], []
    for number, heat in enumerate(heats):
        won = heat > levels[number]
        sure = np.abs(heat - levels[number]) > near
        for rival, other in enumerate(heats):
            if rival != number:
                same = np.array_equal(heat, other)
                won &= (number < rival) if same else heat > other
                sure &= same | (np.abs(heat - other) > near)
        wins.append(won)
        certain.append(sure)
    return wins, certain


@st.composite
def cases(draw: st.DrawFn, grid: int = 12, side: int = 50) -> tuple[Any, ...]:
    """Several images: maps of several kinds, some of them twice, constant or not finite."""
    shape = (draw(st.integers(1, grid)), draw(st.integers(1, grid)))
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    maps: list[torch.Tensor] = []
    for count in counts:
        for number in range(count):
            kind = draw(st.sampled_from(["own", "own", "own", "twice", "constant", "nan"]))
            if kind == "twice" and number:
                made = maps[len(maps) - draw(st.integers(1, number))].clone()
            else:
                made = map_values(draw, (1, *shape))[0]
            if kind == "constant":
                made = torch.full(shape, 7.0)
            if kind == "nan":
                made[0, 0] = draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
            maps.append(made)
    raw = torch.stack(maps) if maps else torch.empty(0, *shape)
    order = draw(st.sampled_from(ORDERS))
    levels = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.floats(0, 0.99))
    thresholds = draw(st.lists(levels, min_size=len(raw), max_size=len(raw)))
    return raw, height, width, thresholds, order, counts


def check(make: Any, case: tuple[Any, ...], rule: Any = "fixed", near: float = NEAR) -> None:
    raw, height, width, thresholds, order, counts = case
    config = MaskConfig(overlap="winner", rule=rule)
    made = masks_of(make, raw, height, width, thresholds, config, order, counts)
    assert len(made) == len(raw)
    finite = raw.isfinite().all(2).all(1)
    heats = heat_of(raw.masked_fill(~finite[:, None, None], 0), height, width, order).numpy()
    levels = heats.mean((1, 2)).tolist() if rule == "mean" else config.levels(thresholds)
    start = 0
    for count in counts:
        image = slice(start, start := start + count)
        owners = np.zeros((height, width), dtype=int)
        wins, certain = expected_of(heats[image], levels[image], near)
        for heat, mask, level, won, sure, is_finite in zip(
            heats[image], made[image], levels[image], wins, certain, finite[image], strict=True
        ):
            pixels = pixels_of(mask, height, width)
            np.testing.assert_array_equal(pixels[sure], won[sure])
            owners += pixels
            if isinstance(mask, Mask):
                assert mask.area == pixels.sum()
                assert mask.heat_mean == pytest.approx(heat[pixels].mean(), abs=near)
                assert mask.threshold == pytest.approx(level, abs=near)
            elif not is_finite:
                assert mask == "not_finite"
            elif (heat > level + near).any():
                assert mask == "overlapped"
            elif (heat < level - near).all():
                assert mask in ("below_threshold", "flat_map")
        assert owners.max(initial=0) <= 1
        if len(set(levels[image])) == 1:  # what is above the level belongs to somebody
            hottest = heats[image].max(0)
            sure = np.abs(hottest - levels[image][0]) > near
            np.testing.assert_array_equal(owners[sure] == 1, hottest[sure] > levels[image][0])


@given(cases())
@settings(max_examples=100)
def test_every_pixel_belongs_to_the_hottest_map(case: tuple[Any, ...]) -> None:
    check(winners, case)


@given(cases(grid=6, side=30))
@settings(max_examples=60)
def test_every_pixel_belongs_to_the_hottest_map_above_its_mean(case: tuple[Any, ...]) -> None:
    if applies(MaskConfig(rule="mean"), case[4]):
        check(winners, case, "mean")


@given(cases(grid=6, side=30), st.sampled_from(["fixed", "mean"]))
@settings(max_examples=60)
def test_the_raster_path_says_the_same(case: tuple[Any, ...], rule: str) -> None:
    raw, *others = case
    span = raw.amax((1, 2), keepdim=True) - raw.amin((1, 2), keepdim=True)
    coarse = torch.where(span < 1e-3, raw.round(), raw)  # float32 has no room between
    check(rasters, (coarse, *others), rule, near=1e-5)


@pytest.mark.slow
@given(cases(grid=64, side=600))
@settings(max_examples=50)
def test_large_images(case: tuple[Any, ...]) -> None:
    check(winners, case)


# --- by hand


ROWS = torch.tensor(
    [
        [[0.0, 0.0, 4.0, 4.0, 1.0]],  # heat 0, 0, 1, 1, ¼
        [[0.0, 3.0, 3.0, 4.0, 4.0]],  # heat 0, ¾, ¾, 1, 1
        [[4.0, 3.0, 0.0, 0.0, 3.0]],  # heat 1, ¾, 0, 0, ¾
        [[2.0, 2.0, 2.0, 2.0, 2.0]],  # nothing
    ]
)


@pytest.mark.parametrize("make", [winners, rasters])
def test_a_row_of_pixels_by_hand(make: Any) -> None:
    first, second, third, flat = masks_of(make, ROWS, 1, 5, [None] * 4, WINNER)
    assert pixels_of(first, 1, 5).tolist() == [[False, False, True, True, False]]
    assert pixels_of(second, 1, 5).tolist() == [[False, True, False, False, True]]
    assert pixels_of(third, 1, 5).tolist() == [[True, False, False, False, False]]
    assert flat == "flat_map"
    assert isinstance(second, Mask) and second.heat_mean == pytest.approx(0.875)
    assert isinstance(first, Mask) and (first.area, first.bbox) == (2, [2, 0, 2, 1])


@pytest.mark.parametrize("make", [winners, rasters])
def test_a_crossing_between_two_cells_by_hand(make: Any) -> None:
    # Down 8 pixels of 2 cells, heats at the pixels are 0, 0, ⅛, ⅜, ⅝, ⅞, 1, 1 of one map and the
    # reverse of the other: they are equal between the fourth pixel and the fifth.
    up = torch.tensor([[0.0], [1.0]])
    raw = torch.stack([up, 1 - up])
    below, above = masks_of(make, raw, 8, 1, [0.3, 0.7], WINNER)
    assert pixels_of(below, 8, 1)[:, 0].astype(int).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert pixels_of(above, 8, 1)[:, 0].astype(int).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("make", [winners, rasters])
def test_who_wins_below_its_own_threshold_leaves_the_pixel_to_nobody(make: Any) -> None:
    raw = torch.tensor([[[0.0, 3.0, 4.0]], [[0.0, 2.0, 1.0]]])  # heat 0, ¾, 1 and 0, 1, ½
    masks = masks_of(make, raw, 1, 3, [0.9, 0.4], WINNER)
    assert [pixels_of(mask, 1, 3).astype(int).tolist() for mask in masks] == [
        [[0, 0, 1]],
        [[0, 1, 0]],
    ]
    masks = masks_of(make, raw.flip(0) * 1.0, 1, 3, [0.4, 0.9], WINNER)
    assert [pixels_of(mask, 1, 3).astype(int).tolist() for mask in masks] == [
        [[0, 1, 0]],
        [[0, 0, 1]],
    ]
    masked = masks_of(make, raw, 1, 3, [0.9, 0.99], WINNER)
    lower = torch.tensor([[[0.0, 3.0, 4.0]], [[0.0, 2.0, 4.0]]])  # heat 0, ¾, 1 and 0, ½, 1
    first, second = masks_of(make, lower, 1, 3, [0.9, 0.4], WINNER)
    assert pixels_of(masked[1], 1, 3).astype(int).tolist() == [[0, 1, 0]]
    assert pixels_of(first, 1, 3).astype(int).tolist() == [[0, 0, 1]]
    assert second == "overlapped"  # at ½ the first is hotter, though below its own threshold


@pytest.mark.parametrize("make", [winners, rasters])
def test_of_equal_maps_the_first_has_all(make: Any) -> None:
    raw = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1)
    first, *others = masks_of(make, raw, 40, 30, [None] * 3, WINNER)
    (alone,) = masks_of(level_sets, raw[:1], 40, 30, [None], MaskConfig())
    assert isinstance(first, Mask) and isinstance(alone, Mask)
    assert first.segmentation == alone.segmentation
    assert others == ["overlapped", "overlapped"]


@pytest.mark.parametrize("make", [winners, rasters])
def test_small_masks_are_those_of_what_is_left(make: Any) -> None:
    masks = masks_of(make, ROWS, 1, 5, [None] * 4, WINNER, min_area=2.0)
    assert [mask if isinstance(mask, str) else mask.area for mask in masks] == [
        *(2, 2, "min_area", "flat_map"),
    ]


# --- images and memory


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("make", [winners, rasters])
def test_images_do_not_compete_with_one_another(make: Any, order: HeatOrder) -> None:
    raw = torch.randn(9, 7, 7, generator=torch.Generator().manual_seed(3))
    thresholds = [0.1 * number for number in range(9)]
    together = masks_of(make, raw, 30, 40, thresholds, WINNER, order, [4, 0, 1, 4])
    apart = [
        mask
        for part in (slice(0, 4), slice(4, 5), slice(5, 9))
        for mask in masks_of(make, raw[part], 30, 40, thresholds[part], WINNER, order)
    ]
    assert together == apart
    assert together != masks_of(make, raw, 30, 40, thresholds, WINNER, order)


@pytest.mark.parametrize("limit", [1, 300, 2000, 5000])
def test_strips_of_columns_change_nothing(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.rand(7, 12, 12, generator=torch.Generator().manual_seed(0))
    arguments = (raw, 50, 40, [None, 0.1, 0.2, 0.3, None, 0.9, 0.5], WINNER, ORDERS[0], [3, 4])
    whole = masks_of(winners, *arguments)
    monkeypatch.setattr(module, "CHUNK_VALUES", limit)
    assert len(list(winners(*arguments))) == (1 if limit == 5000 else 2)
    assert masks_of(winners, *arguments) == whole


def test_chunks_of_pixels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.rand(7, 12, 12, generator=torch.Generator().manual_seed(0))
    raw[5] = raw[1]
    arguments = (raw, 50, 40, [None] * 7, WINNER, ORDERS[0])
    whole = masks_of(rasters, *arguments)
    monkeypatch.setattr("pipeline.outputs.raster.CHUNK_PIXELS", 2 * 50 * 40)
    assert masks_of(rasters, *arguments) == whole


@pytest.mark.parametrize("make", [winners, rasters])
def test_no_maps_have_no_masks(make: Any) -> None:
    nothing = torch.empty(0, 12, 12)
    assert masks_of(make, nothing, 50, 40, [], WINNER) == []
    assert masks_of(make, nothing, 50, 40, [], WINNER, ORDERS[0], [0, 0]) == []


def test_a_single_map_has_the_mask_that_it_has_without_rivals() -> None:
    raw = torch.rand(5, 9, 11, generator=torch.Generator().manual_seed(4))
    alone = masks_of(threshold_maps, raw, 120, 90, [0.3] * 5, WINNER, ORDERS[0], [1] * 5)
    kept = masks_of(threshold_maps, raw, 120, 90, [0.3] * 5, MaskConfig())
    for ours, theirs in zip(alone, kept, strict=True):
        assert isinstance(ours, Mask) and isinstance(theirs, Mask)
        assert ours.segmentation == theirs.segmentation
        assert ours.heat_mean == pytest.approx(theirs.heat_mean, abs=1e-12)


def test_48_prompts_share_an_image() -> None:
    raw = torch.rand(48, 12, 12, generator=torch.Generator().manual_seed(5))
    masks = masks_of(threshold_maps, raw, 96, 128, [None] * 48, WINNER)
    pixels = np.array([pixels_of(mask, 96, 128) for mask in masks])
    assert pixels.sum(0).max() == 1
    heat = legrad.heatmap(raw, (96, 128)).numpy()
    assert (pixels.argmax(0) == heat.argmax(0))[pixels.any(0)].mean() > 0.9999
