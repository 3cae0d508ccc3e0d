"""Scores of classes against cases that are counted by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.evaluation.prompted.scores import (
    CLASS_COUNTS,
    best_iou,
    class_row,
    pooled,
    prompted_scores,
)
from pipeline.evaluation.prompted.tree import class_numbers
from pipeline.evaluation.segmentation.precision import average_precision

TRUTH = np.array([False, False, True, False, True])


def test_precision_and_iou_of_five_pixels() -> None:
    scores = np.float32([0, 0.25, 0.5, 0.75, 1])
    assert average_precision(scores, TRUTH) == pytest.approx(5 / 6)
    assert best_iou(scores, TRUTH)[0] == pytest.approx(2 / 3)


def test_a_constant_map_finds_nothing() -> None:
    scores = np.full(5, 0.3, np.float32)
    assert average_precision(scores, TRUTH) == pytest.approx(0.4)
    assert best_iou(scores, TRUTH)[0] == 0.0


FIRST, SECOND = np.float32([0, 1, 0, 0]), np.float32([0.1, 0.12, 0.11, 0.1])
TRUTHS = np.array([0, 1, 0, 0, 1, 0, 0, 0], bool)


@pytest.mark.parametrize(("normalisation", "precision"), [("global", 0.70), ("image", 0.375)])
def test_normalisation_decides_what_pooling_finds(normalisation: str, precision: float) -> None:
    """Two images of 2 x 2: the mean of their own precisions would be 0.625."""
    maps = [torch.from_numpy(each).view(2, 2) for each in (FIRST, SECOND)]
    scores = pooled(maps, 2, normalisation)
    assert average_precision(scores, TRUTHS) == pytest.approx(precision)
    first = average_precision(FIRST, TRUTHS[:4])
    second = average_precision(SECOND, TRUTHS[4:])
    assert (first + second) / 2 == pytest.approx(0.625)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float32, 12, elements=st.integers(-64, 64)),
    arrays.arrays(bool, 12),
    st.integers(1, 4),
    st.integers(-8, 8),
)
def test_one_scale_for_all_maps_changes_nothing(
    values: np.ndarray, truth: np.ndarray, scale: int, shift: int
) -> None:
    moved = values * np.float32(2**scale) + np.float32(shift)
    assert average_precision(moved, truth) == average_precision(values, truth)
    assert best_iou(moved, truth)[0] == best_iou(values, truth)[0]


def test_pixels_between_patches_are_interpolated() -> None:
    scores = pooled([torch.tensor([[0.0, 1.0]])], 4, "global").reshape(4, 4)
    assert scores[0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_classes_count_alike() -> None:
    values = np.float32([0, 0.25, 0.5, 0.75, 1])
    rows = [
        class_row(1, values, TRUTH, 1),
        class_row(2, np.concatenate([values] * 9), np.concatenate([TRUTH] * 9), 9),
        class_row(3, np.full(5, 0.3, np.float32), TRUTH, 1),
        class_row(4, values, np.zeros(5, bool), 1),
    ]
    scores = prompted_scores(pa.Table.from_pylist(rows, CLASS_COUNTS))
    assert scores["map"] == pytest.approx((5 / 6 + 5 / 6 + 0.4 + 0) / 4)
    assert scores["miou"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    assert (scores["classes"], scores["without_pixels"], scores["pairs"]) == (4, 1, 12)


def test_numbers_of_classes() -> None:
    colours = np.array([[0, 0, 1], [9, 255, 2], [10, 1, 3], [20, 5, 4], [130, 200, 5]])
    assert class_numbers(colours).tolist() == [0, 255, 257, 517, 3528]
