"""From a score to a probability, and how far such probabilities are from the truth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit, logit

from pipeline.inputs.calibration import Calibration

BINS = 10
"""Of equal width, that probabilities are sorted into."""


def fit_logistic(
    score: Float64[np.ndarray, " pair"], present: Bool[np.ndarray, " pair"]
) -> Calibration:
    """The logistic curve under which what is there is likeliest, by Platt (1999).

    As he has it, the truth is drawn towards one half by a pair of each kind, so that a sample in
    which scores tell everything apart has a curve too.

    Args:
        score: of each pair.
        present: whether it is there; some are and some are not.
    """
    there = int(present.sum())
    target = np.where(present, (there + 1) / (there + 2), 1 / (len(present) - there + 2))
    centre, spread = float(score.mean()), float(score.std()) or 1.0
    design = np.stack([(score - centre) / spread, np.ones_like(score)], axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        linear = design @ weights
        value = np.logaddexp(0, linear) - target * linear
        return float(value.mean()), design.T @ (expit(linear) - target) / len(target)

    def curvature(weights: np.ndarray) -> np.ndarray:
        likely = expit(design @ weights)
        curved: np.ndarray = (design * (likely * (1 - likely))[:, None]).T @ design / len(target)
        return curved

    start = np.array([0.0, logit(target.mean())])
    slope, intercept = minimize(
        loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9}
    ).x
    return Calibration(float(slope / spread), float(intercept - slope * centre / spread))


def probabilities(
    found: Calibration, score: Float64[np.ndarray, " pair"]
) -> Float64[np.ndarray, " pair"]:
    """`Calibration.probability` of many scores."""
    likely: np.ndarray = expit(found.slope * score + found.intercept)
    return likely


def reliability(
    probability: Float64[np.ndarray, " pair"], present: Bool[np.ndarray, " pair"]
) -> tuple[Int64[np.ndarray, " bin"], Float64[np.ndarray, " bin"], Float64[np.ndarray, " bin"]]:
    """Of every bin: pairs in it, their mean probability, and the part that is there (NaN of none).

    Bins are half open, [0, 0.1) to [0.9, 1], the last with its end.
    """
    which = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    means, parts = (
        np.divide(
            np.bincount(which, values, BINS),
            counts,
            out=np.full(BINS, np.nan),
            where=counts > 0,
        )
        for values in (probability, present.astype(np.float64))
    )
    return counts, means, parts


def calibration_error(
    probability: Float64[np.ndarray, " pair"], present: Bool[np.ndarray, " pair"]
) -> float:
    """Expected calibration error, 0..1: how far means and parts of `reliability` lie apart.

    Weighted by the pairs in each bin; Naeini et al. (2015), for the one event of being there.
    """
    counts, means, parts = reliability(probability, present)
    used = counts > 0
    return float((counts[used] * np.abs(means - parts)[used]).sum() / counts.sum())
