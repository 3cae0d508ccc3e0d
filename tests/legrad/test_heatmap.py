"""Upsampling and normalisation."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

import legrad
from legrad import HeatOrder

CONSTANT = torch.full((2, 3), 0.1)
RAMP = torch.arange(6.0).reshape(2, 3)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_every_map_spans_0_to_1_or_is_zero(raw: np.ndarray) -> None:
    heat = legrad.heatmap(torch.from_numpy(raw), size=(13, 7))
    assert heat.shape == (len(raw), 13, 7)
    low, high = heat.amin(dim=(1, 2)), heat.amax(dim=(1, 2))
    assert (low == 0).all()
    assert ((high == 1) | (high == 0)).all()


def test_degenerate_maps_become_zeros_and_can_be_counted() -> None:
    raw = torch.stack(
        [CONSTANT, RAMP, CONSTANT + 1e-13 * RAMP, RAMP / 0, torch.full((2, 3), torch.nan), 0 * RAMP]
    )
    assert legrad.degenerate(raw).tolist() == [True, False, True, True, True, True]
    for order in HeatOrder:
        heat = legrad.heatmap(raw, size=(37, 41), order=order)
        assert heat.any(dim=2).any(dim=1).tolist() == [False, True, False, False, False, False]


def test_maps_that_upsampling_makes_constant_are_zeros_too() -> None:
    assert not legrad.heatmap(RAMP[None], size=(1, 1)).any()


def test_a_tiny_but_varying_map_is_not_degenerate() -> None:
    assert not legrad.degenerate(1e-9 * RAMP[None]).any()


def test_upsampling_is_bilinear_between_patch_centres() -> None:
    heat = legrad.heatmap(torch.tensor([[[0.0, 1.0]]]), size=(1, 4))
    torch.testing.assert_close(heat, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))


def test_the_order_of_normalisation_matters() -> None:
    """A single peak never falls on a pixel centre when the factor is even."""
    raw = torch.zeros(1, 5, 5)
    raw[0, 2, 2] = 3
    assert legrad.heatmap(raw, size=(80, 80)).max() == 1
    before = legrad.heatmap(raw, size=(80, 80), order=HeatOrder.NORMALISE_UPSAMPLE)
    assert float(before.max()) == pytest.approx(0.9385, abs=1e-4)


def test_clipping_comes_after_upsampling_and_before_normalisation() -> None:
    """−1, 1 becomes −1, −0.5, 0.5, 1; cut off on the grid it would be 0, 0.25, 0.75, 1."""
    raw = torch.tensor([[[-1.0, 1.0]]])
    heat = legrad.heatmap(raw, size=(1, 4), order=HeatOrder.UPSAMPLE_CLIP_NORMALISE)
    torch.testing.assert_close(heat, torch.tensor([[[0.0, 0.0, 0.5, 1.0]]]))


def test_clipping_a_map_above_0_changes_nothing() -> None:
    raw = 1 + torch.rand(2, 3, 4)
    heat = legrad.heatmap(raw, size=(9, 8), order=HeatOrder.UPSAMPLE_CLIP_NORMALISE)
    assert torch.equal(heat, legrad.heatmap(raw, size=(9, 8)))


def test_a_map_that_is_nowhere_above_0_is_degenerate_where_it_is_clipped() -> None:
    raw = torch.stack([-RAMP, RAMP - 2])
    order = HeatOrder.UPSAMPLE_CLIP_NORMALISE
    assert legrad.degenerate(raw, order=order).tolist() == [True, False]
    assert not legrad.degenerate(raw).any()
    heat = legrad.heatmap(raw, size=(8, 8), order=order)
    assert not heat[0].any() and heat[1].max() == 1
    infinite = torch.tensor([[[-torch.inf, 1.0]]])
    assert legrad.degenerate(infinite, order=order).all()
    assert not legrad.heatmap(infinite, size=(8, 8), order=order).any()


def test_a_transposed_grid_gives_the_transposed_heatmap() -> None:
    raw = torch.rand(3, 5, 7)
    heat = legrad.heatmap(raw, size=(40, 63))
    transposed = legrad.heatmap(raw.transpose(1, 2), size=(63, 40))
    assert transposed.is_contiguous()
    torch.testing.assert_close(transposed.transpose(1, 2), heat, rtol=0, atol=1e-5)


def test_minmax_leaves_its_argument_alone() -> None:
    maps = RAMP[None].clone()
    torch.testing.assert_close(legrad.minmax(maps), RAMP[None] / 5)
    assert torch.equal(maps, RAMP[None])


def test_other_types_give_float32() -> None:
    heat = legrad.heatmap(RAMP[None].double(), size=(4, 6))
    assert heat.dtype == torch.float32
    assert torch.equal(heat, legrad.heatmap(RAMP[None], size=(4, 6)))
