"""Scores of segmentation: by hand, against scikit-learn and torchmetrics."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from pipeline.evaluation.segmentation.precision import average_precision, two_channel_precision
from pipeline.evaluation.segmentation.scores import REGION_COUNTS, region_rows, segmentation_scores
from pipeline.evaluation.segmentation.truth import ClassMasks

Run = Callable[..., Any]


def table(*images: tuple[ClassMasks, np.ndarray]) -> pa.Table:
    rows = [
        row
        for number, (truth, heat) in enumerate(images)
        for row in region_rows(f"i{number}", truth, heat, heat > np.float32(0.5))
    ]
    return pa.Table.from_pylist(rows, schema=REGION_COUNTS)


def truth(*masks: list[list[int]], ignored: np.ndarray | None = None) -> ClassMasks:
    stack = np.array(masks, dtype=bool)
    nothing = np.zeros(stack.shape[1:], dtype=bool)
    return ClassMasks(
        [f"c{i}" for i in range(len(masks))], stack, nothing if ignored is None else ignored
    )


def test_data_set_micro_by_hand() -> None:
    # Image 1 is all object and all found; image 2 has 1 pixel of 4, and 2 found, 1 of them right.
    first = (truth([[1, 1]]), np.array([[[1.0, 0.9]]], dtype=np.float32))
    second = (truth([[1, 0, 0, 0]]), np.array([[[1.0, 0.9, 0.1, 0.0]]], dtype=np.float32))
    scores = segmentation_scores(table(first, second))
    assert scores["fixed"]["pixel_accuracy"] == pytest.approx(5 / 6)
    assert scores["fixed"]["miou"] == pytest.approx((3 / 4 + 2 / 3) / 2)  # not means of images
    # Mean heat of image 1 is 0.95: one pixel of two. Of image 2 it is 0.5: as before.
    assert scores["mean"]["pixel_accuracy"] == pytest.approx(4 / 6)
    assert scores["classes"] == {"background": pytest.approx(2 / 3), "c0": pytest.approx(3 / 4)}


def test_ignored_pixels_do_not_count() -> None:
    ignored = np.array([[False, False, True]])
    one = (truth([[1, 0, 0]], ignored=ignored), np.array([[[1.0, 0.0, 1.0]]], dtype=np.float32))
    scores = segmentation_scores(table(one))
    assert scores["fixed"] == {"pixel_accuracy": 1.0, "miou": 1.0}
    assert scores["two_channel_ap"] == scores["foreground_ap"] == 1.0


def test_the_hottest_class_has_the_pixel() -> None:
    two = truth([[1, 0, 0, 1]], [[0, 1, 0, 1]])  # the last pixel is of both: it does not count
    heat = np.array([[[0.9, 0.8, 0.1, 1.0]], [[0.6, 0.7, 0.6, 1.0]]], dtype=np.float32)
    # Found: c0, c0 (0.8 beats 0.7), c1; true: c0, c1, background.
    assert segmentation_scores(table((two, heat)))["classes"] == {
        "background": 0.0,
        "c0": 1 / 2,
        "c1": 0.0,
    }


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn_and_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [
        (truth((rng.random(shape) < 0.4).astype(int).tolist()), rng.random((1, *shape)).round(2))
        for shape in ((7, 9), (12, 5), (3, 3))
    ]
    images = [(t, heat.astype(np.float32)) for t, heat in images]
    scores = segmentation_scores(table(*images))
    expected = torch.cat([torch.from_numpy(t.masks[0].ravel()).long() for t, _ in images])
    found = torch.cat([torch.from_numpy((h > 0.5).ravel()).long() for _, h in images])
    iou = multiclass_jaccard_index(found, expected, 2, average="macro")
    accuracy = multiclass_accuracy(found, expected, 2, average="micro")
    assert scores["fixed"]["miou"] == pytest.approx(float(iou), abs=1e-6)  # theirs is float32
    assert scores["fixed"]["pixel_accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    both = []
    for t, heat in images:
        inside, values = t.masks[0].ravel(), heat.ravel()
        channels = np.concatenate([1 - values, values])
        both.append(average_precision_score(np.concatenate([~inside, inside]), channels))
        only = average_precision_score(inside, values)
        assert average_precision(values, inside) == pytest.approx(only, abs=1e-9)
    assert scores["two_channel_ap"] == pytest.approx(np.mean(both), abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_a_random_map_has_half_whatever_the_object(share: float) -> None:
    rng = np.random.default_rng(0)
    inside, heat = rng.random(40_000) < share, rng.random(40_000)
    assert two_channel_precision(heat, inside) == pytest.approx(0.5, abs=0.02)
    assert average_precision(heat, inside) == pytest.approx(share, abs=0.02)
    assert two_channel_precision(inside.astype(float), inside) == 1.0
    # Inverted and of two values: all true entries come last, together with all false ones.
    assert two_channel_precision(1.0 - inside, inside) == pytest.approx(0.5)
    assert two_channel_precision(np.zeros(40_000), inside) == pytest.approx(0.5)
