"""The parts of a mask that touch no other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipeline.outputs.masks import RLE, decode, encode, measure

CORNERS_TOUCH = np.ones((3, 3), dtype=bool)


class Part(NamedTuple):
    """A part of a mask; see `Instance` for the attributes."""

    area: int
    bbox: list[float]
    segmentation: RLE


def split(segmentation: RLE, bbox: list[float], least: float) -> list[Part]:
    """The parts of a mask, where pixels touch by sides and corners, from left to right.

    Args:
        segmentation: the mask.
        bbox: tight, of the mask.
        least: smaller parts are left out; pixels from 1 up, a fraction of the image below 1.
    """
    pixels = decode(segmentation)
    smallest = least if least >= 1 else least * pixels.size
    left, top, width, height = map(int, bbox)
    inside = np.s_[top : top + height, left : left + width]
    # Transposed, so that parts are numbered by columns, as the runs of a mask are.
    labels, found = ndimage.label(pixels[inside].T, CORNERS_TOUCH)
    areas = np.bincount(labels.ravel(), minlength=found + 1)
    parts = []
    for label in np.flatnonzero(areas >= max(smallest, 1)):
        if label > 0:
            part = np.zeros((*pixels.shape, 1), dtype=np.uint8, order="F")
            part[inside][..., 0] = (labels == label).T
            (encoded,) = encode(part)
            parts.append(Part(*measure(encoded), encoded))
    return parts
