"""Region voting: pixels of one colour region move towards the region's mean heat."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from skimage.segmentation import felzenszwalb
from torch import Tensor

SCALE = 100.0
"""Larger makes larger regions: what a difference in colour must exceed is this by region size."""
SIGMA = 0.5
"""Pixels by which the image is blurred first."""
MIN_SIZE = 20
"""Pixels; smaller regions join the neighbour that is most like them."""
STEPS = 1 << 30
"""Heat is added up in whole parts of this, so that no order of addition changes a sum."""


def regions(guide: UInt8[Tensor, "3 height width"]) -> Int64[Tensor, "height width"]:
    """The region of every pixel, numbered from 0, on the CPU.

    The graph-based segmentation of P. Felzenszwalb and D. Huttenlocher, Efficient Graph-Based
    Image Segmentation, IJCV 2004, as scikit-image has it.
    """
    pixels = guide.permute(1, 2, 0).cpu().numpy()
    found = felzenszwalb(pixels, scale=SCALE, sigma=SIGMA, min_size=MIN_SIZE, channel_axis=-1)
    return torch.from_numpy(found.astype(np.int64))


def region_means(
    maps: Float32[Tensor, "map height width"], labels: Int64[Tensor, "height width"]
) -> Float32[Tensor, "map height width"]:
    """Maps that have, at every pixel, the mean heat of its region.

    Args:
        maps: heat 0..1.
        labels: of the regions, from 0, on the device of the maps.
    """
    of_pixel = labels.flatten()
    count = torch.bincount(of_pixel)
    parts = (maps.flatten(1).double() * STEPS).round_().long()
    sums = parts.new_zeros(len(maps), len(count))
    sums.scatter_add_(1, of_pixel.expand_as(parts), parts)
    means = (sums.double() / (STEPS * count)).float()
    return means[:, of_pixel].view_as(maps)
