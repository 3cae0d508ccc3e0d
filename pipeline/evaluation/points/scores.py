"""From the counts of all pairs to scores: four ways of averaging, controls, confidence, sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from pipeline.evaluation.columns import sorted_codes
from pipeline.evaluation.points.counts import PAIR_COUNTS, THRESHOLDS
from pipeline.evaluation.points.definition import intersection_over_union, mean_over_classes
from pipeline.evaluation.points.pairs import LabelledPairs

PER_CLASS = "p-mIoU: classes"
PER_PAIR = "image-class pairs"
MICRO = "all points"
TWO_SIDED = "classes, foreground and background"
AVERAGES = (PER_CLASS, PER_PAIR, MICRO, TWO_SIDED)
CONFIDENCE = 0.95
SCORE_STEPS = 21

Counts = Int64[np.ndarray, " group"]


@dataclass(frozen=True)
class PairCounts:
    """The counts of all pairs, as columns.

    Attributes:
        images: distinct images, sorted.
        labels: distinct labels, sorted.
        image: position in `images`, for every pair.
        label: position in `labels`, for every pair.
        yes, no: points of each pair by their answer.
        tp, fp: of these, on the mask.
        score: of the mask; NaN where there is none.
        tp_at, fp_at: the same at each of `THRESHOLDS`; None without heat for every mask.
    """

    images: list[str]
    labels: list[str]
    image: Int64[np.ndarray, " pair"]
    label: Int64[np.ndarray, " pair"]
    yes: Int64[np.ndarray, " pair"]
    no: Int64[np.ndarray, " pair"]
    tp: Int64[np.ndarray, " pair"]
    fp: Int64[np.ndarray, " pair"]
    score: Float64[np.ndarray, " pair"]
    tp_at: Int64[np.ndarray, "pair threshold"] | None
    fp_at: Int64[np.ndarray, "pair threshold"] | None

    @classmethod
    def of(cls, table: pa.Table) -> PairCounts:
        """Take the merged counts of all shards."""
        images, image = sorted_codes(table["image"])
        labels, label = sorted_codes(table["label"])
        yes, no, tp, fp = (
            table[name].to_numpy().astype(np.int64) for name in ("yes", "no", "tp", "fp")
        )
        score = table["score"].to_numpy().astype(np.float64)
        tp_at, fp_at = (_per_threshold(table, name) for name in ("tp_at", "fp_at"))
        return cls(images, labels, image, label, yes, no, tp, fp, score, tp_at, fp_at)

    @property
    def has_mask(self) -> np.ndarray:
        """Whether there is a mask, for every pair."""
        masked: np.ndarray = ~np.isnan(self.score)
        return masked

    def averages(self, weight: Int64[np.ndarray, " pair"] | None = None) -> dict[str, float]:
        """The four averages, 0..1; `weight` counts pairs more than once, or not at all."""
        tp, fp, fn, tn = self.tp, self.fp, self.yes - self.tp, self.no - self.fp
        per_class = [self._per_class(values, weight) for values in (tp, fp, fn, tn)]
        every = np.ones(len(tp), dtype=np.int64) if weight is None else weight
        ious = intersection_over_union(tp, fp, fn)
        total = [np.array([(values * every).sum()]) for values in (tp, fp, fn)]
        return {
            PER_CLASS: mean_over_classes(class_ious(*per_class[:3])),
            PER_PAIR: float((ious * every).sum() / every.sum()),
            MICRO: float(intersection_over_union(*total)[0]),
            TWO_SIDED: mean_over_classes(_two_sided(*per_class)),
        }

    def p_miou(self, weight: Int64[np.ndarray, " pair"] | None = None) -> float:
        """The first of `averages` alone."""
        columns = (self.tp, self.fp, self.yes - self.tp)
        return mean_over_classes(class_ious(*(self._per_class(c, weight) for c in columns)))

    def classes(self) -> dict[str, Counts]:
        """Sums per class: pairs, pairs with a mask, points and those on the masks."""
        ones = np.ones(len(self.tp), dtype=np.int64)
        columns = {"pairs": ones, "masks": self.has_mask.astype(np.int64)}
        columns |= {name: getattr(self, name) for name in ("yes", "no", "tp", "fp")}
        return {name: self._per_class(values) for name, values in columns.items()}

    def image_ious(self) -> Float64[np.ndarray, " image"]:
        """IoU over all points of every image."""
        tp, fp, yes = (
            np.bincount(self.image, values, len(self.images))
            for values in (self.tp, self.fp, self.yes)
        )
        ious: np.ndarray = tp / (yes + fp)
        return ious

    def constant(self, inside: bool) -> PairCounts:
        """What masks that cover everything, or nothing, would count."""
        if inside:
            return replace(self, tp=self.yes, fp=self.no)
        return replace(self, tp=0 * self.yes, fp=0 * self.no)

    def above(self, score: float) -> PairCounts:
        """What the masks whose score exceeds `score` count; the others predict nothing."""
        kept = (self.score > score).astype(np.int64)
        return replace(self, tp=self.tp * kept, fp=self.fp * kept)

    def at_threshold(self, position: int) -> PairCounts:
        """What masks at one of `THRESHOLDS` would count."""
        assert self.tp_at is not None and self.fp_at is not None
        return replace(self, tp=self.tp_at[:, position], fp=self.fp_at[:, position])

    def _per_class(
        self, values: Int64[np.ndarray, " pair"], weight: Int64[np.ndarray, " pair"] | None = None
    ) -> Counts:
        weighted = values if weight is None else values * weight
        # Sums of whole numbers below 2^53, so that float64 is exact.
        return np.bincount(self.label, weighted, len(self.labels)).astype(np.int64)


def class_ious(tp: Counts, fp: Counts, fn: Counts) -> Float64[np.ndarray, " scored"]:
    """IoU of every class that has a yes point."""
    scored = tp + fn > 0
    return intersection_over_union(tp[scored], fp[scored], fn[scored])


def _two_sided(tp: Counts, fp: Counts, fn: Counts, tn: Counts) -> Float64[np.ndarray, " scored"]:
    """Mean of foreground and background IoU of every class with a yes point.

    A class without a no point has no background, unless a yes point was missed; without one, its
    foreground counts alone.
    """
    scored = tp + fn > 0
    tp, fp, fn, tn = tp[scored], fp[scored], fn[scored], tn[scored]
    foreground = intersection_over_union(tp, fp, fn)
    union = tn + fp + fn
    background = np.where(union > 0, tn / np.maximum(union, 1), foreground)
    both: np.ndarray = (foreground + background) / 2
    return both


def confidence_interval(counts: PairCounts, rounds: int, seed: int) -> tuple[float, float]:
    """Where p-mIoU lies in 95 % of the samples with replacement of the images."""
    rng = np.random.default_rng(seed)
    images = len(counts.images)
    values = []
    for _ in range(rounds):
        drawn = np.bincount(rng.integers(images, size=images), minlength=images)
        values.append(counts.p_miou(drawn[counts.image]))
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def score_sweep(counts: PairCounts) -> list[dict[str, float]]:
    """p-mIoU and share of masks kept, for evenly spaced quantiles of the scores."""
    scores = counts.score[counts.has_mask]
    if not len(scores):
        return []
    below = float(np.nextafter(scores.min(), -np.inf))
    levels = np.unique([below, *np.quantile(scores, np.linspace(0, 1, SCORE_STEPS)[1:-1])])
    return [
        {
            "score": float(level),
            "kept": float((scores > level).mean()),
            "p_miou": counts.above(level).p_miou(),
        }
        for level in levels
    ]


def threshold_sweep(counts: PairCounts) -> list[dict[str, float]]:
    """p-mIoU at each of `THRESHOLDS`; nothing where heat is not there for every mask."""
    if counts.tp_at is None:
        return []
    return [
        {"threshold": threshold, "p_miou": counts.at_threshold(position).p_miou()}
        for position, threshold in enumerate(THRESHOLDS)
    ]


def unseen(pairs: LabelledPairs, images: Sequence[str]) -> pa.Table:
    """Counts of the pairs whose image is not among `images`: nothing was predicted there."""
    missing = ~np.isin(np.array(pairs.images), np.array(images, dtype=object).astype(str))
    which = np.flatnonzero(missing[pairs.image])
    yes, sizes = pairs.yes_counts(), pairs.sizes()
    rows: list[dict[str, Any]] = [
        {
            "image": pairs.images[pairs.image[pair]],
            "label": pairs.labels[pairs.label[pair]].id,
            "yes": int(yes[pair]),
            "no": int(sizes[pair] - yes[pair]),
            "tp": 0,
            "fp": 0,
        }
        for pair in which
    ]
    return pa.Table.from_pylist(rows, schema=PAIR_COUNTS)


def _per_threshold(table: pa.Table, name: str) -> np.ndarray | None:
    """[pair, threshold]; pairs without a mask count nothing; None where a mask has no heat."""
    column = table[name].combine_chunks()
    masked = table["score"].combine_chunks().is_valid()
    without = pa.compute.and_(masked, column.is_null())
    if pa.compute.any(without).as_py() or not pa.compute.any(masked).as_py():
        return None
    values = np.zeros((len(column), len(THRESHOLDS)), dtype=np.int64)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    values[present] = column.flatten().to_numpy().reshape(-1, len(THRESHOLDS))
    return values
