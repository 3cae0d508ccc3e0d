"""Counts in fixed bins."""

import numpy as np
import pytest

from pipeline.report.bins import AREA, MASKS, RAW_MAX, SCORE, Bins


@pytest.mark.parametrize(
    ("bins", "values", "within"),
    [
        (SCORE, np.random.default_rng(0).normal(0.2, 0.1, 999), 0.0005),
        (AREA, np.random.default_rng(1).uniform(0, 1, 1000), 0.0005),
        (MASKS, np.random.default_rng(2).integers(0, 30, 77), 0),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_quantile_is_right_to_half_a_bin(
    bins: Bins, values: np.ndarray, within: float, share: float
) -> None:
    exact = np.quantile(values, share, method="inverted_cdf")
    assert bins.quantile(bins.count(values), share) == pytest.approx(exact, abs=within + 1e-9)


def test_a_bin_of_raw_maxima_is_an_eighth_wide() -> None:
    values = np.exp(np.random.default_rng(3).normal(-5, 3, 500)).astype(np.float32)
    exact = np.quantile(values, 0.5, method="inverted_cdf")
    assert RAW_MAX.quantile(RAW_MAX.count(values), 0.5) == pytest.approx(exact, rel=0.07)


def test_of_nothing_there_is_no_quantile() -> None:
    assert SCORE.quantile(np.zeros(len(SCORE), np.int64), 0.5) is None


def test_what_lies_beyond_the_ends_is_in_the_outer_bins() -> None:
    beyond = np.array([-3, 3], np.float32)
    assert SCORE.index(beyond).tolist() == [0, len(SCORE) - 1]
    assert RAW_MAX.index(np.array([-1.0, 0.0, 1e9])).tolist() == [0, 0, len(RAW_MAX) - 1]
    assert MASKS.index(np.array([0, 1, 5000])).tolist() == [0, 1, 1000]


def test_float32_values_at_a_limit_are_not_below_it() -> None:
    limits = SCORE.edges.astype(np.float32)
    assert SCORE.index(limits[:-1]).tolist() == list(range(len(SCORE)))
    below = np.nextafter(limits[1:], np.float32(-9))
    assert SCORE.index(below).tolist() == list(range(len(SCORE)))
