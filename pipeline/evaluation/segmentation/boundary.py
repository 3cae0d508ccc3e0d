"""How well the outline of a mask fits: IoU near the true outline, and the boundary's F.

Both are blind to the inside of large objects, where any mask is right, and see what an outline that
is some pixels off costs. The image's own edge is no outline: what lies beyond it is not known.
Distances are the larger of those in rows and columns: a width of 5 is a square of 11 pixels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage

BAND = 5
"""Pixels to either side of the true outline that `band_iou` looks at."""
TOLERANCE = 2
"""Pixels that two outlines may be apart and still be the same for `boundary_f`."""

_TOUCHING = np.ones((3, 3), dtype=bool)


def iou(found: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]) -> float:
    """Intersection over union, 0..1; 1 where both are empty."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def band_iou(
    found: Bool[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    width: int = BAND,
) -> float:
    """IoU of the pixels that lie near the true outline, 0..1 (the idea of trimap IoU).

    Args:
        found: the mask that is judged.
        truth: the true one.
        width: up to so many pixels from the nearest one on the other side of the outline, a pixel
            counts.

    Returns:
        NaN where the true mask has no outline, for it is empty or covers everything.
    """
    if truth.all() or not truth.any():
        return float("nan")
    band = _distance(truth) + _distance(~truth) <= width  # one of the two is 0
    return iou(found & band, truth & band)


def outline(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels of a mask that touch one that is not of it, if only by a corner."""
    edge: np.ndarray = mask & ~ndimage.binary_erosion(mask, _TOUCHING, border_value=1)
    return edge


def boundary_f(
    found: Bool[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    tolerance: int = TOLERANCE,
) -> float:
    """F of the outlines, 0..1: the harmonic mean of their precision and recall.

    Precision is the share of the found outline that lies within `tolerance` pixels of the true one,
    recall that of the true outline within it of the found one (Csurka et al., "What is a good
    evaluation measure for semantic segmentation?", BMVC 2013). 1 where neither mask has an outline,
    0 where one alone has none.
    """
    of_found, of_truth = outline(found), outline(truth)
    if not of_found.any() or not of_truth.any():
        return float(of_found.any() == of_truth.any())
    precision = float((_distance(~of_truth)[of_found] <= tolerance).mean())
    recall = float((_distance(~of_found)[of_truth] <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _distance(mask: Bool[np.ndarray, "height width"]) -> Int32[np.ndarray, "height width"]:
    """Of every pixel of a mask that is not everything from the nearest one that is not of it."""
    distance: np.ndarray = ndimage.distance_transform_cdt(mask, "chessboard")
    return distance
