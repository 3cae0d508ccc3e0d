"""The outlines of a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from jaxtyping import Bool, Float64

INSIDE = 0.5
"""Half way between a pixel of the background, 0, and one of the mask, 1."""


@dataclass(frozen=True)
class Outline:
    """A part of a mask.

    Attributes:
        points: around it, x and y in pixels from the image's corner, so that the centre of the
            first pixel is (0.5, 0.5). Exactly the centres of the part's pixels, and of its holes',
            are inside.
        holes: how many it has, which a polygon cannot say.
        area: of the polygon, square pixels.
    """

    points: Float64[np.ndarray, "point 2"]
    holes: int
    area: float


def outlines(mask: Bool[np.ndarray, "height width"]) -> list[Outline]:
    """The parts of a mask, the largest first."""
    top, left, inside = _cropped(mask)
    heights = np.pad(inside, 1).astype(np.float64)
    generator = contour_generator(z=heights, fill_type=FillType.OuterOffset)
    parts: Any = generator.filled(INSIDE, 2.0)  # its type depends on `fill_type`
    # One pixel of padding, and the centre of a pixel is half a pixel from its corner.
    shift = np.array([left, top]) - INSIDE
    found = []
    for points, ends in zip(*parts, strict=True):
        corners = _corners(points[: ends[1] - 1] + shift)
        found.append(Outline(corners, len(ends) - 2, _area(corners)))
    return sorted(found, key=lambda outline: -outline.area)


def _cropped(mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Where the mask begins, and the pixels of its box."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, mask[:0, :0]
    top, left = int(rows[0]), int(columns[0])
    return top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1]


def _corners(points: np.ndarray) -> np.ndarray:
    """The points of a closed line without those in the middle of a straight part."""
    to, onward = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    turns = to[:, 0] * onward[:, 1] != to[:, 1] * onward[:, 0]
    corners: np.ndarray = points[turns]
    return corners


def _area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
