"""Thresholds: counts against plain comparisons, and the choice by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calibration.overlaps import THRESHOLDS, Overlaps, overlap


@given(st.integers(0, 1000))
def test_counts_at_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat = rng.choice(np.append(THRESHOLDS, rng.random(20).astype(np.float32)), (5, 7))
    truth, counted = rng.random((2, 5, 7)) < 0.6
    found = overlap(heat, truth, counted)
    for position, threshold in enumerate(THRESHOLDS):
        mask = heat > threshold
        assert found[:, position].tolist() == [
            (mask & truth & counted).sum(),
            (mask & ~truth & counted).sum(),
            (~mask & truth & counted).sum(),
        ]


def two_classes(by_pair: bool) -> Overlaps:
    """Class 0 has two pairs and likes the first threshold, class 1 has one and likes the last."""
    tp = np.array([[8, 4], [80, 40], [1, 2]])
    fp = np.array([[0, 0], [0, 0], [3, 0]])
    fn = np.array([[2, 6], [20, 60], [1, 0]])
    image, label = np.array([0, 1, 1]), np.array([0, 0, 1])
    thresholds = np.array([0.4, 0.6], np.float32)
    return Overlaps(thresholds, image, label, tp, fp, fn, by_pair)


def test_of_masks_the_measure_is_the_mean_over_pairs() -> None:
    counts, ious, overall = two_classes(True).curves(np.ones(3, bool), 2)
    assert counts.tolist() == [2, 1]
    np.testing.assert_allclose(ious, [[0.8, 0.4], [0.2, 1.0]])
    np.testing.assert_allclose(overall, [1.8 / 3, 1.8 / 3])
    assert two_classes(True).value(np.array([0, 0, 1]), 2) == pytest.approx(2.6 / 3)


def test_of_points_the_measure_is_the_mean_over_classes() -> None:
    _, ious, overall = two_classes(False).curves(np.ones(3, bool), 2)
    np.testing.assert_allclose(ious, [[88 / 110, 44 / 110], [0.2, 1.0]])
    np.testing.assert_allclose(overall, [0.5, 0.7])
    assert two_classes(False).value(np.array([0, 0, 1]), 2) == pytest.approx(0.9)


def test_thresholds_of_classes_are_drawn_towards_the_runs() -> None:
    overlaps = two_classes(False)
    run, own = overlaps.tuned(np.ones(3, bool), 2, shrink=0.0)
    assert (run, own.tolist()) == (1, [0, 1])
    # 2 · (0.8 − 0.4) against shrink · (0.7 − 0.5)
    assert overlaps.tuned(np.ones(3, bool), 2, shrink=3.9)[1].tolist() == [0, 1]
    assert overlaps.tuned(np.ones(3, bool), 2, shrink=4.1)[1].tolist() == [1, 1]
    # What is not among the chosen has no say: class 1 is left with the run's.
    assert overlaps.tuned(np.array([True, False, False]), 2, shrink=0.0)[1].tolist() == [0, 0]
