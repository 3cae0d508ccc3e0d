"""How histograms are laid out."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.bins import AREA, MASKS, SCORE
from pipeline.report.charts import LEFT, MOST_BARS, RIGHT, WIDTH, Chart, draw_histogram
from pipeline.report.contents import Histogram


def chart(counts: np.ndarray, whole: bool = False) -> Chart:
    bins = MASKS if whole else SCORE
    return draw_histogram(
        "name", "title", "caption", Histogram.of(bins, counts), lambda v: f"{v:.3f}", whole
    )


@given(st.dictionaries(st.integers(0, len(SCORE) - 1), st.integers(1, 9), max_size=60))
def test_few_bars_side_by_side_have_every_count_once(filled: dict[int, int]) -> None:
    counts = np.zeros(len(SCORE), np.int64)
    counts[list(filled)] = list(filled.values())
    drawn = chart(counts)
    assert len(drawn.bars) <= MOST_BARS
    assert sum(bar.count for bar in drawn.bars) == counts.sum()
    for left, right in pairwise(drawn.bars):
        assert left.high == right.low and left.x + left.width <= right.x + 0.02
    for bar in drawn.bars:
        low, high = (round(1000 * float(edge)) + 1000 for edge in (bar.low, bar.high))
        assert bar.count == counts[low:high].sum()
        assert LEFT <= bar.x and bar.x + bar.width <= WIDTH - RIGHT + 0.02
    places = [tick.x for tick in drawn.ticks]
    assert all(b - a > 40 for a, b in pairwise(places))


@pytest.mark.parametrize("first", [0, 7, 1210, 1233])
def test_groups_of_bins_begin_at_round_numbers(first: int) -> None:
    counts = np.zeros(len(SCORE), np.int64)
    counts[first : first + 150] = 1
    starts = [round(1000 * float(bar.low)) for bar in chart(counts).bars[1:]]
    assert all(start % 5 == 0 for start in starts)


def test_whole_numbers_stand_below_their_bars() -> None:
    drawn = chart(MASKS.count(np.array([0, 1, 1, 3])), whole=True)
    assert [(bar.low, bar.high, bar.count) for bar in drawn.bars] == [
        ("0.000", "0.000", 1),
        ("1.000", "1.000", 2),
        ("2.000", "2.000", 0),
        ("3.000", "3.000", 1),
    ]
    assert drawn.ticks[0].x == drawn.bars[0].x + (WIDTH - LEFT - RIGHT) / 4 / 2


def test_nothing_makes_an_empty_chart() -> None:
    drawn = chart(np.zeros(len(SCORE), np.int64))
    assert (drawn.bars, drawn.ticks, drawn.summary) == ([], [], "Nothing was counted.")


def test_the_summary_has_the_quantiles() -> None:
    counted = Histogram.of(AREA, AREA.count(np.arange(1, 101) / 100 - 0.0005))
    drawn = draw_histogram("n", "t", "c", counted, lambda value: f"{value:.4f}")
    assert drawn.summary == "Median 0.4995; 80 % lie between 0.0995 and 0.8995."
