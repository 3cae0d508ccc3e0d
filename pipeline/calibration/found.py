"""What a sample gives: levels, thresholds and probabilities, and how they do on other images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.levels import Levels, find_levels, precision_recall
from pipeline.calibration.logistic import calibration_error, fit_logistic, probabilities
from pipeline.calibration.overlaps import Overlaps
from pipeline.calibration.sample import LabelledSample
from pipeline.errors import ConfigError
from pipeline.inputs.calibration import Calibration

USUAL = 0.5
"""Threshold of masks that nobody has chosen."""


@dataclass(frozen=True)
class Found:
    """What some images give.

    Attributes:
        levels: of presence.
        curve: from scores to probabilities.
        threshold: position among those of `Overlaps` of the run's; None where there are none.
        own_thresholds: of each class.
    """

    levels: Levels
    curve: Calibration
    threshold: int | None
    own_thresholds: Int64[np.ndarray, " class"] | None


@dataclass(frozen=True)
class Judged:
    """How what the other images gave does on each part of them; values in 0..1.

    Attributes:
        run: precision and recall above the run's level.
        own: the same above those of the classes.
        error: expected calibration error, of all pairs.
        error_above: of those above the level of their class.
        brier: mean squared distance of probability and truth.
        probability: of each pair.
        usual, run_threshold, own_threshold: the measure of `Overlaps` at 0.5, at the run's
            threshold and at those of the classes; None where there is none.
    """

    run: tuple[float, float]
    own: tuple[float, float]
    error: float
    error_above: float
    brier: float
    probability: Float64[np.ndarray, " pair"]
    usual: float | None = None
    run_threshold: float | None = None
    own_threshold: float | None = None

    @property
    def by_class(self) -> bool:
        """Whether thresholds of classes prove better than one for all."""
        run, own = self.run_threshold, self.own_threshold
        return run is not None and own is not None and own > run


def find(
    config: CalibrateConfig, sample: LabelledSample, chosen: Bool[np.ndarray, " image"]
) -> Found:
    """What some of the images of a sample give.

    Raises:
        ConfigError: no level keeps the precision that is asked for, or their pairs are all there,
            or all absent.
    """
    pairs, classes = chosen[sample.image], len(sample.names)
    score, present = sample.score[pairs], sample.present[pairs]
    there = int(present.sum())
    if not 0 < there < len(present):
        kind = "there" if there else "absent"
        raise ConfigError(
            f"--folds {config.folds}: without one of the parts, all {len(present):,} pairs of the "
            f"{int(chosen.sum()):,} images left are {kind}; give more images, or another --folds "
            "or --seed"
        )
    levels = find_levels(
        score,
        present,
        sample.label[pairs],
        classes,
        precision=config.precision,
        confidence=config.confidence,
        shrink=config.shrink,
    )
    threshold, own = None, None
    if sample.overlaps is not None:
        spots = chosen[sample.overlaps.image]
        threshold, own = sample.overlaps.tuned(spots, classes, config.shrink)
    return Found(levels, fit_logistic(score, present), threshold, own)


def cross_validate(config: CalibrateConfig, sample: LabelledSample) -> Judged:
    """Judge every part of the images by what the others gave.

    Raises:
        ConfigError: there are fewer images than parts, or some parts alone do not do.
    """
    if sample.images < config.folds:
        raise ConfigError(
            f"--folds {config.folds}: only {sample.images} images have a known truth; give more "
            "images, or fewer folds"
        )
    order = np.random.default_rng(config.seed).permutation(sample.images)
    part = np.empty(sample.images, np.int64)
    part[order] = np.arange(sample.images) % config.folds
    by_run, by_own = np.zeros((2, len(sample.score)), dtype=bool)
    probability = np.empty(len(sample.score))
    spots = sample.overlaps
    at_run, at_own = np.zeros((2, len(spots.image) if spots else 0), np.int64)
    for fold in range(config.folds):
        found = find(config, sample, part != fold)
        mine = part[sample.image] == fold
        score, label = sample.score[mine], sample.label[mine]
        by_run[mine] = score > found.levels.run
        by_own[mine] = score > found.levels.own[label]
        probability[mine] = probabilities(found.curve, score)
        if spots and found.threshold is not None and found.own_thresholds is not None:
            here = part[spots.image] == fold
            at_run[here] = found.threshold
            at_own[here] = found.own_thresholds[spots.label[here]]
    missed = int(sample.missed.sum())
    present = sample.present
    return Judged(
        run=precision_recall(by_run, present, missed),
        own=precision_recall(by_own, present, missed),
        error=calibration_error(probability, present),
        error_above=calibration_error(probability[by_own], present[by_own])
        if by_own.any()
        else float("nan"),
        brier=float(((probability - present) ** 2).mean()),
        probability=probability,
        **(_measures(spots, at_run, at_own, len(sample.names)) if spots else {}),
    )


def _measures(
    overlaps: Overlaps,
    at_run: Int64[np.ndarray, " pair"],
    at_own: Int64[np.ndarray, " pair"],
    classes: int,
) -> dict[str, float]:
    usual = int(np.abs(overlaps.thresholds - USUAL).argmin())
    return {
        "usual": overlaps.value(np.full_like(at_run, usual), classes),
        "run_threshold": overlaps.value(at_run, classes),
        "own_threshold": overlaps.value(at_own, classes),
    }
