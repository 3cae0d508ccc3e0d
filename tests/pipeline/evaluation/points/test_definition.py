"""p-mIoU of a few points by hand, and what must not count."""

import math

import numpy as np

from pipeline.evaluation.points.definition import Point, PointCounts, pixel_of


def test_the_last_pixels_have_the_edges() -> None:
    assert pixel_of(Point(1.0, 1.0, True), 2, 4) == (1, 3)
    assert pixel_of(Point(0.0, 0.0, True), 2, 4) == (0, 0)
    assert pixel_of(Point(0.5, 0.49, True), 2, 4) == (0, 2)


def test_masks_that_are_constant() -> None:
    labelled = [Point(0.1, 0.1, True), Point(0.9, 0.9, False), Point(0.5, 0.5, False)]
    everything, nothing, absent = PointCounts(), PointCounts(), PointCounts()
    everything.update("dog", np.ones((5, 5), dtype=bool), labelled)
    nothing.update("dog", np.zeros((5, 5), dtype=bool), labelled)
    absent.update("dog", None, labelled)
    assert (everything.p_miou(), nothing.p_miou(), absent.p_miou()) == (1 / 3, 0.0, 0.0)
    assert nothing == absent


def test_a_class_without_yes_points_is_left_out() -> None:
    counts = PointCounts()
    counts.update("dog", np.ones((2, 2), dtype=bool), [Point(0.5, 0.5, False)])
    assert counts.iou() == {}
    assert math.isnan(counts.p_miou())


def test_the_points_of_a_class_are_counted_over_all_images() -> None:
    mask = np.array([[True, False]])
    counts = PointCounts()
    counts.update("dog", mask, [Point(0.1, 0.5, True)])
    counts.update("dog", mask, [Point(0.9, 0.5, True), Point(0.2, 0.5, False)])
    assert counts.iou() == {"dog": 1 / 3}
