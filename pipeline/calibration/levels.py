"""The score above which a class is taken to be there: lowest where a precision is still kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.stats import beta

from pipeline.errors import ConfigError

MOST_LEVELS = 2000
"""That are tried."""


@dataclass(frozen=True)
class Levels:
    """Levels of presence.

    Attributes:
        run: for every class that has none of its own.
        precision: what it promises, 0..1: a lower confidence bound.
        own: of each class.
        own_precision: what each of them promises, 0..1: its own, shrunk towards the run's.
    """

    run: float
    precision: float
    own: Float64[np.ndarray, " class"]
    own_precision: Float64[np.ndarray, " class"]


def find_levels(
    score: Float64[np.ndarray, " pair"],
    present: Bool[np.ndarray, " pair"],
    label: Int64[np.ndarray, " pair"],
    classes: int,
    *,
    precision: float,
    confidence: float,
    shrink: float,
) -> Levels:
    """The lowest levels that keep a precision: of all pairs, and of each class.

    For the run, that is a one-sided bound on the precision of the pairs above the level (Clopper
    and Pearson, 1934). A class rarely has pairs enough for a bound; its precision at a level is
    (there + shrink · bound) / (pairs + shrink), where `bound` is the run's at that level, or below.
    Where no level of a class keeps it, the run's is taken, and promises less.

    Args:
        score: of each pair.
        present: whether it is there.
        label: its class, from 0.
        classes: how many there are.
        precision: to be kept.
        confidence: of the run's bound.
        shrink: pairs that the run counts as much as, in a class.

    Raises:
        ConfigError: no level keeps it.
    """
    levels = candidates(score, present)
    kept, there = _above(levels, score), _above(levels, score[present])
    bound = beta.ppf(1 - confidence, np.maximum(there, 1), kept - there + 1)
    good = np.flatnonzero((bound >= precision) & (there > 0))
    if not len(good):
        best = float(bound.max())
        raise ConfigError(
            f"--precision {precision}: no level keeps it; on {int(present.sum()):,} pairs that are "
            f"there, the most is {best:.3f} (--confidence {confidence}); give less, or more images"
        )
    lowest = int(good[0])
    own, promised = np.empty(classes), np.empty(classes)
    # Higher up, where pairs are few, the bound falls; the precision has no reason to.
    steady = np.maximum.accumulate(bound)
    for number in range(classes):
        mine = label == number
        of_all, of_there = (_above(levels, score[mine & which]) for which in (True, present))
        shrunk = (of_there + shrink * steady) / np.maximum(of_all + shrink, 1e-12)
        fit = np.flatnonzero(shrunk >= precision)
        place = int(fit[0]) if len(fit) else lowest
        own[number], promised[number] = levels[place], shrunk[place]
    return Levels(float(levels[lowest]), float(bound[lowest]), own, promised)


def candidates(
    score: Float64[np.ndarray, " pair"], present: Bool[np.ndarray, " pair"]
) -> Float64[np.ndarray, " level"]:
    """Levels to try, ascending: half way from a score of what is there to the next one below."""
    every = np.unique(score)
    places = np.searchsorted(every, np.unique(score[present]))
    if len(places) > MOST_LEVELS:
        chosen = np.linspace(0, len(places) - 1, MOST_LEVELS).round().astype(np.int64)
        places = places[chosen]
    below = np.where(places > 0, every[places - 1], every[places] - 1)
    middle: np.ndarray = (every[places] + below) / 2
    return middle


def _above(
    levels: Float64[np.ndarray, " level"], score: Float64[np.ndarray, " some"]
) -> Int64[np.ndarray, " level"]:
    """How many scores exceed each level."""
    counts: np.ndarray = len(score) - np.searchsorted(np.sort(score), levels, side="right")
    return counts


def precision_recall(
    kept: Bool[np.ndarray, " pair"], present: Bool[np.ndarray, " pair"], missed: int
) -> tuple[float, float]:
    """Precision and recall of the pairs that are kept, 0..1; NaN where there is nothing.

    Args:
        kept: which are.
        present: whether each is there.
        missed: what is there and was not even looked for.
    """
    right, taken, there = int((kept & present).sum()), int(kept.sum()), int(present.sum()) + missed
    return right / taken if taken else float("nan"), right / there if there else float("nan")
