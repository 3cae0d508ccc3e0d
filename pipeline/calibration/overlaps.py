"""How well masks fit the truth at every threshold: what thresholds of heat are chosen by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

THRESHOLDS = np.arange(2, 99, dtype=np.float32) / 100
"""That are tried where masks are known."""


@dataclass(frozen=True)
class Overlaps:
    """Counts of pixels, or of points, of pairs that are there, at each of some thresholds.

    Attributes:
        thresholds: ascending, 0..1.
        image: of each pair, from 0.
        label: class of each pair, from 0.
        tp, fp, fn: right, wrongly and not found, at each threshold.
        by_pair: whether the measure is the mean IoU of the pairs, as for masks; for points it is
            p-mIoU: counts are summed for each class, and its IoU is averaged over classes.
    """

    thresholds: Float32[np.ndarray, " threshold"]
    image: Int64[np.ndarray, " pair"]
    label: Int64[np.ndarray, " pair"]
    tp: Int64[np.ndarray, "pair threshold"]
    fp: Int64[np.ndarray, "pair threshold"]
    fn: Int64[np.ndarray, "pair threshold"]
    by_pair: bool

    @property
    def measure(self) -> str:
        """What it is called."""
        return "mask mIoU" if self.by_pair else "p-mIoU"

    def curves(
        self, chosen: Bool[np.ndarray, " pair"], classes: int
    ) -> tuple[
        Float64[np.ndarray, " class"],
        Float64[np.ndarray, "class threshold"],
        Float64[np.ndarray, " threshold"],
    ]:
        """Of some pairs: how many each class has, its IoU by threshold (0 of none), the measure."""
        label = self.label[chosen]
        counts = np.bincount(label, minlength=classes).astype(np.float64)
        tp, fp, fn = self.tp[chosen], self.fp[chosen], self.fn[chosen]
        if self.by_pair:
            ious = _sums(label, tp / np.maximum(tp + fp + fn, 1), classes)
            ious /= np.maximum(counts, 1)[:, None]
            weights = counts
        else:
            right, *wrong = (_sums(label, values, classes) for values in (tp, fp, fn))
            ious = right / np.maximum(right + sum(wrong), 1)
            weights = (counts > 0).astype(np.float64)
        return counts, ious, weights @ ious / max(weights.sum(), 1)

    def tuned(
        self, chosen: Bool[np.ndarray, " pair"], classes: int, shrink: float
    ) -> tuple[int, Int64[np.ndarray, " class"]]:
        """The position of the best threshold for all of some pairs, and of that of each class.

        A class of n pairs has the one where n · its IoU + shrink · the measure is largest.
        """
        counts, ious, overall = self.curves(chosen, classes)
        run = int(overall.argmax())
        own = (counts[:, None] * ious + shrink * overall).argmax(1)
        return run, np.where(counts > 0, own, run)

    def value(self, at: Int64[np.ndarray, " pair"], classes: int) -> float:
        """The measure, 0..1, with each pair at the threshold of some position."""
        which = at[:, None]
        tp, fp, fn = (
            np.take_along_axis(values, which, 1) for values in (self.tp, self.fp, self.fn)
        )
        there = replace(self, thresholds=self.thresholds[:1], tp=tp, fp=fp, fn=fn)
        return float(there.curves(np.ones(len(at), dtype=bool), classes)[2][0])


def overlap(
    heat: Float32[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    counted: Bool[np.ndarray, "height width"],
) -> Int64[np.ndarray, "3 threshold"]:
    """Pixels right, wrongly and not found at each of `THRESHOLDS`.

    Args:
        heat: 0..1.
        truth: where the thing is.
        counted: pixels that count.
    """
    exceeded = np.searchsorted(THRESHOLDS, heat[counted], side="left")  # how many thresholds are
    inside = truth[counted]
    tp, fp = (
        np.bincount(exceeded[which], minlength=len(THRESHOLDS) + 1)[:0:-1].cumsum()[::-1]
        for which in (inside, ~inside)
    )
    return np.stack([tp, fp, inside.sum() - tp]).astype(np.int64)


def _sums(
    label: Int64[np.ndarray, " pair"], values: np.ndarray, classes: int
) -> Float64[np.ndarray, "class threshold"]:
    sums = np.zeros((classes, values.shape[1]))
    np.add.at(sums, label, values)
    return sums
