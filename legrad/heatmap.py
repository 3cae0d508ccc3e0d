"""From raw patch-grid maps to heatmaps in [0, 1] at image size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

DEGENERATE_SPAN = 1e-12


def heatmap(
    raw: Float[Tensor, "Q gh gw"], size: tuple[int, int], *, normalise_first: bool = False
) -> Float32[Tensor, "Q H W"]:
    """Upsample raw maps to `size` = (H, W) and normalise each to [0, 1].

    Bilinear, `align_corners=False`, no antialiasing; then (x − min) / (max − min) per map, so the
    minimum is exactly 0 and the maximum exactly 1. A degenerate map (see `degenerate`) becomes all
    zeros, "nothing found"; count them with `degenerate(raw).sum()`.

    `heatmap(raw.transpose(1, 2), size=(W, H))` is the transpose of this up to the rounding of the
    interpolation, and is laid out the way run-length encoders want it.

    Args:
        raw: any finite values, rows then columns of patches.
        size: (rows, columns) of the result, in pixels.
        normalise_first: normalise on the patch grid instead, as an explainer asks for by its
            `normalise_before_upsampling`; values then stay within [0, 1] but need not reach 1.

    Raises:
        ValueError: `size` is not positive.
    """
    if min(size) <= 0:
        raise ValueError(f"size={size}: both sides must be positive")
    if len(raw) == 0:  # interpolate refuses an empty batch
        return raw.new_empty((0, *size), dtype=torch.float32)
    # Cleared on the grid, for interpolation rounds a constant into something not quite constant.
    maps = _cleared(raw)
    if normalise_first:
        maps = _stretch_(maps)
    maps = F.interpolate(
        maps.float().unsqueeze(1), size=size, mode="bilinear", align_corners=False
    ).squeeze(1)
    return maps if normalise_first else _stretch_(maps)


def minmax(maps: Float[Tensor, "Q rows columns"]) -> Float[Tensor, "Q rows columns"]:
    """(x − min) / (max − min) per map; all zeros where the map is degenerate."""
    return _stretch_(_cleared(maps))


def degenerate(maps: Float[Tensor, "Q rows columns"]) -> Bool[Tensor, " Q"]:
    """Whether a map is constant, max − min ≤ 1e-12 · max(1, |max|), or not finite."""
    return _flat(*_range(maps)).flatten()


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
