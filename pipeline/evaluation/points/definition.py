"""Point-wise mIoU (p-mIoU): masks scored by yes/no point labels, as in OpenImages V7.

The definition is the foreground IoU per class, of counts summed over images, then the mean over
classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64


class Point(NamedTuple):
    """A point that people (or a ground-truth mask) said is on the class, or is not.

    Attributes:
        x: 0 (left edge) to 1 (right edge) of the image.
        y: 0 (top edge) to 1 (bottom edge) of the image.
        yes: whether the class is there.
    """

    x: float
    y: float
    yes: bool


def pixel_of(point: Point, height: int, width: int) -> tuple[int, int]:
    """Row and column of the pixel under `point`; the right and bottom edges belong to the last."""
    rows, columns = pixels_of(np.array([point.x]), np.array([point.y]), height, width)
    return int(rows[0]), int(columns[0])


def pixels_of(
    x: Float64[np.ndarray, " point"], y: Float64[np.ndarray, " point"], height: int, width: int
) -> tuple[Int64[np.ndarray, " point"], Int64[np.ndarray, " point"]]:
    """Rows and columns of the pixels under points with coordinates in [0, 1]."""
    rows = np.minimum((y * height).astype(np.int64), height - 1)
    columns = np.minimum((x * width).astype(np.int64), width - 1)
    return rows, columns


def intersection_over_union(
    tp: Int64[np.ndarray, " group"],
    fp: Int64[np.ndarray, " group"],
    fn: Int64[np.ndarray, " group"],
) -> Float64[np.ndarray, " group"]:
    """IoU from counts, 0..1; a class with a yes point has a denominator."""
    iou: np.ndarray = tp / (tp + fp + fn)
    return iou


def mean_over_classes(ious: Iterable[float]) -> float:
    """The last step of p-mIoU, 0..1; NaN when there is no class."""
    values = np.fromiter(ious, dtype=np.float64)
    return float(values.mean()) if len(values) else float("nan")


@dataclass
class PointCounts:
    """True positives, false positives and false negatives per class, counted point by point.

    The readable form of what `PairCounts` does with columns, and its oracle in the tests.
    """

    tp: Counter[str] = field(default_factory=Counter)
    fp: Counter[str] = field(default_factory=Counter)
    fn: Counter[str] = field(default_factory=Counter)

    def update(
        self, name: str, mask: Bool[np.ndarray, "height width"] | None, points: Iterable[Point]
    ) -> None:
        """Count the points of one (image, class) pair; `mask=None` predicts nothing anywhere."""
        for point in points:
            predicted = mask is not None and bool(mask[pixel_of(point, *mask.shape)])
            if point.yes and predicted:
                self.tp[name] += 1
            elif point.yes:
                self.fn[name] += 1
            elif predicted:
                self.fp[name] += 1

    def iou(self) -> dict[str, float]:
        """IoU in 0..1 of every class that has a yes point."""
        names = sorted(
            name for name in set(self.tp) | set(self.fn) if self.tp[name] + self.fn[name]
        )
        columns = (
            np.array([counter[name] for name in names], dtype=np.int64)
            for counter in (self.tp, self.fp, self.fn)
        )
        return dict(zip(names, intersection_over_union(*columns).tolist(), strict=True))

    def p_miou(self) -> float:
        """Mean of `iou` over classes, 0..1; NaN when no class has a yes point."""
        return mean_over_classes(self.iou().values())
