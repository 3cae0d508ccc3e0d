"""Levels of presence: by hand, and whether they keep what they promise on other images."""

import numpy as np
import pytest

from pipeline.calibration.levels import Levels, candidates, find_levels, precision_recall
from pipeline.errors import ConfigError

NO_CLASS = np.zeros(0, np.int64)


def levels(score: np.ndarray, present: np.ndarray, **settings: float) -> Levels:
    defaults = {"precision": 0.7, "confidence": 0.5, "shrink": 0.0}
    label = np.zeros(len(score), np.int64)
    return find_levels(score, present, label, 1, **(defaults | settings))


def test_levels_lie_half_way_below_what_is_there() -> None:
    score = np.array([0.5, 0.1, 0.3, 0.3, 0.9])
    present = np.array([True, True, False, True, False])
    assert candidates(score, present).tolist() == pytest.approx([-0.4, 0.2, 0.4])


def test_the_runs_level_by_hand() -> None:
    """With nothing false among n, the bound at confidence c is (1 − c)^(1/n)."""
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    present = np.array([True, True, True, False, True, False])
    found = levels(score, present)
    assert found.run == pytest.approx(0.65)
    assert found.precision == pytest.approx(0.5 ** (1 / 3))
    with pytest.raises(ConfigError, match=r"^--precision 0.99: no level keeps it; on 4 pairs"):
        levels(score, present, precision=0.99)


def test_a_class_without_shrinkage_has_its_own_precision() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    present = np.array([True, True, True, False, True, False])
    found = levels(score, present)  # above 0.45 four of five are there
    assert (found.own[0], found.own_precision[0]) == (pytest.approx(0.45), pytest.approx(0.8))
    assert precision_recall(score > found.own[0], present, missed=1) == (0.8, 0.8)


def test_a_class_of_few_pairs_goes_with_the_run() -> None:
    rng = np.random.default_rng(1)
    score, present, label = sample(rng, 4000)
    few = np.array([0.05])  # there, and far below all others
    score, present = np.append(score, few), np.append(present, True)
    label = np.append(label, 3)
    found = find_levels(score, present, label, 4, precision=0.9, confidence=0.9, shrink=50.0)
    assert found.own[3] == pytest.approx(found.run, abs=0.01)
    assert abs(found.own[:3] - found.run).max() > 0.02


def sample(rng: np.random.Generator, pairs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes, of which one is harder to tell, and one has lower scores."""
    label = rng.integers(0, 3, pairs)
    present = rng.random(pairs) < 0.1
    centre = np.array([0.45, 0.4, 0.35])[label]
    spread = np.array([0.04, 0.06, 0.04])[label]
    score = np.where(present, centre, centre - 0.2) + spread * rng.normal(size=pairs)
    return score, present, label


def test_the_promise_is_kept_on_pairs_that_had_no_part_in_it() -> None:
    """In all but about one draw in ten, as confident as it says; by classes, on average."""
    rng = np.random.default_rng(2)
    run, own = [], []
    for _ in range(40):
        found = find_levels(*sample(rng, 4000), 3, precision=0.95, confidence=0.9, shrink=50.0)
        score, present, label = sample(rng, 100_000)
        run.append(precision_recall(score > found.run, present, 0)[0])
        own.append(precision_recall(score > found.own[label], present, 0))
        assert found.precision >= 0.95
    assert np.mean(np.array(run) >= 0.95) >= 0.85
    assert np.mean([precision for precision, _ in own]) >= 0.945
