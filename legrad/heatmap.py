"""From raw patch-grid maps to heatmaps in [0, 1] at image size."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from legrad.arguments import check_floats, check_kind, whole

DEGENERATE_SPAN = 1e-12


class HeatOrder(Enum):
    """The steps from a raw map to heat, in the order that a method takes them.

    Bilinear upsampling by an even factor never samples the centre of a patch, so that its order
    and that of the other steps matter.

    Attributes:
        UPSAMPLE_NORMALISE: upsample, then normalise (most methods).
        NORMALISE_UPSAMPLE: normalise on the patch grid, then upsample: heat stays within [0, 1] but
            need not reach 1 (the authors' LeGrad for SigLIP).
        UPSAMPLE_CLIP_NORMALISE: upsample, cut off what is below 0, then normalise (TextSpan).
    """

    UPSAMPLE_NORMALISE = "upsample_normalise"
    NORMALISE_UPSAMPLE = "normalise_upsample"
    UPSAMPLE_CLIP_NORMALISE = "upsample_clip_normalise"

    @property
    def clips(self) -> bool:
        """Whether what is below 0 in a raw map is nothing found."""
        return self is HeatOrder.UPSAMPLE_CLIP_NORMALISE


def heatmap(
    raw: Float[Tensor, "Q gh gw"],
    size: tuple[int, int],
    *,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
) -> Float32[Tensor, "Q H W"]:
    """Upsample raw maps to `size` = (H, W) and normalise each to [0, 1].

    Bilinear, `align_corners=False`, no antialiasing; then (x − min) / (max − min) per map, so the
    minimum is exactly 0 and the maximum exactly 1. A degenerate map (see `degenerate`) becomes all
    zeros, "nothing found"; count them with `degenerate(raw, order=order).sum()`.

    `heatmap(raw.transpose(1, 2), size=(W, H))` is the transpose of this up to the rounding of the
    interpolation, and is laid out the way run-length encoders want it.

    Args:
        raw: any finite values, rows then columns of patches.
        size: (rows, columns) of the result, in pixels.
        order: of the steps, an explainer's `heat_order`.

    Raises:
        TypeError: an argument of another kind.
        ValueError: maps that are not of three axes, or a `size` that is not positive.
    """
    _check_maps("raw", raw)
    size = _checked_size(size)
    check_kind("order", order, HeatOrder, "a HeatOrder, such as an explainer's heat_order")
    if len(raw) == 0:  # interpolate refuses an empty batch
        return raw.new_empty((0, *size), dtype=torch.float32)
    # Cleared on the grid, for interpolation rounds a constant into something not quite constant.
    maps = _cleared(raw)
    if order is HeatOrder.NORMALISE_UPSAMPLE:
        return _upsampled(_stretch_(maps), size)
    heat = _upsampled(maps, size)
    return _stretch_(heat.clamp_(min=0) if order.clips else heat)


def minmax(maps: Float[Tensor, "Q rows columns"]) -> Float[Tensor, "Q rows columns"]:
    """(x − min) / (max − min) per map; all zeros where the map is degenerate.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: not of three axes.
    """
    _check_maps("maps", maps)
    return _stretch_(_cleared(maps))


def degenerate(
    maps: Float[Tensor, "Q rows columns"], *, order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE
) -> Bool[Tensor, " Q"]:
    """Whether a map is constant, max − min ≤ 1e-12 · max(1, |max|), or not finite.

    For an order that clips, also whether it is nowhere above 0.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: not of three axes.
    """
    _check_maps("maps", maps)
    low, high = _range(maps)
    flat = _flat(low, high)
    return (flat | (high <= 0) if order.clips else flat).flatten()


def _check_maps(name: str, maps: Float[Tensor, "Q rows columns"]) -> None:
    check_floats(name, maps, "maps [Q, rows, columns] as a tensor of floats")
    if maps.ndim == 2:
        raise ValueError(f"{name} has shape {tuple(maps.shape)}: give a single map as {name}[None]")
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"{name} has shape {tuple(maps.shape)}, expected [Q, rows, columns]")


def _checked_size(size: Any) -> tuple[int, int]:
    wanted = "two whole numbers, (rows, columns) in pixels"
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
        raise TypeError(f"size={size!r}: give {wanted}")
    rows, columns = (whole("a side in size", side, wanted) for side in size)
    if min(rows, columns) <= 0:
        raise ValueError(f"size={(rows, columns)}: both sides must be positive")
    return rows, columns


def _upsampled(maps: Float[Tensor, "Q gh gw"], size: tuple[int, int]) -> Float32[Tensor, "Q H W"]:
    return F.interpolate(
        maps.float().unsqueeze(1), size=size, mode="bilinear", align_corners=False
    ).squeeze(1)


def _cleared(maps: Float[Tensor, "Q rows columns"]) -> Float[Tensor, "Q rows columns"]:
    """A copy with degenerate maps set to zero."""
    return maps.masked_fill(_flat(*_range(maps)), 0)


def _stretch_(maps: Float[Tensor, "Q rows columns"]) -> Float[Tensor, "Q rows columns"]:
    """Normalise finite maps in place: at image size each pass and each copy counts."""
    low, high = _range(maps)
    span = (high - low).masked_fill_(_flat(low, high), torch.inf)
    return maps.sub_(low).div_(span)


def _range(
    maps: Float[Tensor, "Q rows columns"],
) -> tuple[Float[Tensor, "Q 1 1"], Float[Tensor, "Q 1 1"]]:
    # Not `aminmax`: with a dim it takes eight times as long as these two on a CPU.
    return maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)


def _flat(low: Float[Tensor, "Q 1 1"], high: Float[Tensor, "Q 1 1"]) -> Bool[Tensor, "Q 1 1"]:
    span = high - low
    # Negated, so that NaN, which compares false with everything, counts as degenerate too.
    spread = (span > DEGENERATE_SPAN * high.abs().clamp(min=1)) & span.isfinite()
    return ~spread
