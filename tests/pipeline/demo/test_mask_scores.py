"""Scores of masks against cases that can be counted by hand."""

import math

import numpy as np
import pytest
import torch

from pipeline.demo.mask_scores import (
    Pair,
    Truth,
    coco_scores,
    overlap_scores,
    paired,
    point_miou,
    signals,
)
from pipeline.evaluation.points.definition import Point
from pipeline.inputs.prompts import Prompt
from pipeline.outputs.annotations import Annotation
from pipeline.outputs.masks import Mask, encode, measure

SIDE = 40


def box(width: int) -> np.ndarray:
    """The first columns of an image."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[:, :width] = True
    return mask


def pair(found: int, true: int = 20, image: int = 0, name: str = "cat", score: float = 0.5) -> Pair:
    """A class in the first `true` columns, found in the first `found`."""
    mask = None
    if found:
        (segmentation,) = encode(np.asfortranarray(box(found)[..., None], dtype=np.uint8))
        area, bbox = measure(segmentation)
        mask = Mask(segmentation, area, bbox, heat_mean=score / 2, threshold=0.5)
    annotation = Annotation(
        prompt=Prompt(0, name, 1, (name,)),
        text=name,
        score=score,
        raw_min=0.0,
        raw_max=1 - score,
        heat=torch.zeros((2, 2), dtype=torch.uint8),
        mask=mask,
        dropped=None if mask else "flat_map",
    )
    return Pair.of(image, Truth({name: box(true)}), annotation)


def test_overlaps_are_means_over_pairs_and_no_mask_is_a_bad_one() -> None:
    scores = overlap_scores([pair(20), pair(10), pair(4), pair(0)])
    assert scores["mask_miou"] == pytest.approx((1 + 1 / 2 + 1 / 5 + 0) / 4)
    assert scores["bad_share"] == 2 / 4
    assert scores["boundary_f"] == 1 / 4  # the others are more than 2 columns away
    assert scores["band_iou"] == pytest.approx((1 + 0 + 0 + 0) / 4)


def test_iou_of_a_quarter_is_not_bad() -> None:
    assert overlap_scores([pair(5)])["bad_share"] == 0


def test_ap_is_ranked_by_score() -> None:
    """One class in two images, a right mask and a wrong one: the order decides.

    The wrong one first, precision is 1/2 up to a recall of 1/2 and nothing beyond; the right one
    first, it is 1 there. COCO reads precision off at 101 recalls, of which 51 are up to 1/2.
    """
    right_first = [pair(20, score=0.9), pair(4, image=1, score=0.1)]
    wrong_first = [pair(20, score=0.1), pair(4, image=1, score=0.9)]
    assert coco_scores(right_first) == pytest.approx(
        dict.fromkeys(("ap", "ap50", "ap75"), 51 / 101)
    )
    assert coco_scores(wrong_first)["ap50"] == pytest.approx(0.5 * 51 / 101)


def test_ap_counts_thresholds_and_classes() -> None:
    """An IoU of 0.7 is right for 0.5, 0.55, 0.6, 0.65 and 0.7; a class that is missed is 0."""
    scores = coco_scores([pair(14), pair(0, name="dog")])
    assert scores == pytest.approx({"ap": 5 / 10 / 2, "ap50": 1 / 2, "ap75": 0}, abs=1e-6)


def test_points_are_counted_by_class() -> None:
    points = [Point(0.1, 0.5, True), Point(0.4, 0.5, True), Point(0.9, 0.5, False)]
    truths = [Truth({"cat": box(20)}, {"cat": points})]
    assert point_miou([pair(10)], truths) == 1 / 2
    assert point_miou([pair(SIDE)], truths) == 2 / 3
    assert math.isnan(point_miou([pair(10)], [Truth({"cat": box(20)})]))


def test_signals_rank_as_the_iou_does_or_the_other_way() -> None:
    found = [pair(8, score=0.1), pair(12, score=0.3), pair(19, score=0.7), pair(0, score=0.9)]
    correlations = signals(found)
    assert correlations == pytest.approx({"heat_mean": 1, "score": 1, "raw_max": -1, "area": 1})


def test_the_error_of_a_mean_with_a_pair_an_image_is_the_usual_one() -> None:
    values = np.array([0.1, 0.3, -0.2, 0.4])
    mean, error = paired(values, np.arange(4))
    assert (mean, error) == pytest.approx((values.mean(), values.std(ddof=1) / 2))


def test_pairs_of_an_image_are_one_draw() -> None:
    """The same value twice in every image says no more than once."""
    values = np.array([0.1, 0.3, -0.2, 0.4])
    once = paired(values, np.arange(4))
    assert paired(np.repeat(values, 2), np.repeat(np.arange(4), 2)) == pytest.approx(once)
    assert math.isnan(paired(values, np.zeros(4, dtype=np.int64))[1])
