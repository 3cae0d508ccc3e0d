"""Pixel-adaptive mask refinement (PAMR): heat spreads to neighbours of the same colour.

From N. Araslanov and S. Roth, Single-Stage Semantic Segmentation from Image Labels, CVPR 2020,
the section on PAMR. Every pixel takes, again and again, a weighted mean of its neighbours' heat:

    m_i ← Σ_j α_ij m_j,   α_ij = exp k_ij / Σ_l exp k_il,   k_ij = mean of −|x_i − x_j| / (0.1 σ_i)

The neighbours j of a pixel i are the eight of a 3 × 3 kernel at several dilations (i itself is none
of them), the mean is over the three colours, and σ_i is the standard deviation of a colour over all
those kernels, their centres included. The 0.1 is from the authors' program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int32, UInt8
from torch import Tensor

from pipeline.outputs.masks import parts

DILATIONS = (1, 2, 4, 8)
"""The paper's go on to 12 and 24, which pays for drawings and costs for photographs."""
ITERATIONS = 10
SHARPNESS = 0.1
"""Part of a deviation that differences in colour are measured by."""
CHUNK_PIXELS = 1 << 22
"""Pixels of maps that are refined at once (12 bytes each)."""

_OFFSETS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def affinities(
    guide: UInt8[Tensor, "3 height width"], dilations: Sequence[int] = DILATIONS
) -> Float32[Tensor, "neighbour height width"]:
    """α: what every pixel takes of each of its neighbours; they sum to 1 over the neighbours.

    Beyond the border, the nearest pixel of the image stands in. All neighbours of the smallest
    dilation come first, row by row.
    """
    colours = guide.int()
    deviations = _deviations(colours, dilations)
    weights = 1 / (len(guide) * (SHARPNESS * deviations + 1e-8))
    alike = torch.stack(
        [
            (other - colours).abs_().mul(weights).sum(0).neg_()
            for other in _neighbours(colours, dilations)
        ]
    )
    return alike.softmax(0)


def pamr(
    maps: Float32[Tensor, "map height width"],
    guide: UInt8[Tensor, "3 height width"],
    dilations: Sequence[int] = DILATIONS,
    iterations: int = ITERATIONS,
) -> Float32[Tensor, "map height width"]:
    """Refine maps by the colours of the image that they are of.

    The same on every call, to the last bit: sums run in one order. Beside the maps, 4 bytes are
    needed per pixel and neighbour, that is 128 per pixel of the guide.

    Args:
        maps: heat, any finite values; the results lie between the least and the largest.
        guide: RGB of the image at the size of the maps, on any device.
        dilations: distances of the neighbours, in pixels.
        iterations: how often each pixel takes the mean.
    """
    alpha = affinities(guide.to(maps.device), dilations)
    refined = torch.empty_like(maps)
    for part in parts(len(maps), CHUNK_PIXELS // alpha[0].numel()):
        some = maps[part]
        for _ in range(iterations):
            some = _spread(some, alpha, dilations)
        refined[part] = some
    return refined


def _spread(
    maps: Float32[Tensor, "map height width"],
    alpha: Float32[Tensor, "neighbour height width"],
    dilations: Sequence[int],
) -> Float32[Tensor, "map height width"]:
    spread = torch.zeros_like(maps)
    for other, share in zip(_neighbours(maps, dilations), alpha, strict=True):
        spread.addcmul_(other, share)
    return spread


def _neighbours(images: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The images, [n, height, width], moved so that each neighbour in turn lies on its pixel."""
    reach = max(dilations)
    height, width = images.shape[1:]
    wide = _padded(images, reach)
    for dilation in dilations:
        for y, x in _OFFSETS:
            top, left = reach + y * dilation, reach + x * dilation
            yield wide[:, top : top + height, left : left + width]


def _padded(images: Tensor, reach: int) -> Tensor:
    if images.is_floating_point():
        return F.pad(images, [reach] * 4, mode="replicate")
    rows, columns = (
        torch.arange(-reach, size + reach, device=images.device).clamp(0, size - 1)
        for size in images.shape[1:]
    )
    return images[:, rows[:, None], columns]


def _deviations(
    colours: Int32[Tensor, "3 height width"], dilations: Sequence[int]
) -> Float[Tensor, "3 height width"]:
    """Sample standard deviation of each colour over the kernels, exactly 0 where it is constant."""
    count = 9 * len(dilations)
    total = len(dilations) * colours
    squares = len(dilations) * colours.square()
    for other in _neighbours(colours, dilations):
        total += other
        squares += other.square()
    return (count * squares - total.square()).float().div_(count * (count - 1)).sqrt_()
