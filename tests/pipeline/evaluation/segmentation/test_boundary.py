"""Outlines against cases that can be counted by hand, and against another way to say the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from pipeline.evaluation.segmentation.boundary import band_iou, boundary_f, iou, outline


def box(top: int, left: int, bottom: int, right: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_iou_is_counted() -> None:
    assert iou(box(0, 0, 4, 4), box(2, 0, 6, 4)) == 8 / 24
    assert iou(box(0, 0, 4, 4), box(10, 10, 12, 12)) == 0
    assert iou(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1


def test_the_band_leaves_out_the_inside() -> None:
    """A square of 20: its inside beyond 5 pixels is 10 × 10, the band around it 30 × 30."""
    truth, larger = box(10, 10, 30, 30), box(0, 0, 40, 40)
    assert band_iou(truth, truth) == 1
    assert band_iou(larger, truth) == (400 - 100) / (900 - 100)
    hollow = truth & ~box(15, 15, 25, 25)
    assert band_iou(hollow, truth) == 1  # what is missing lies deeper
    assert band_iou(hollow, truth, width=6) == (400 - 100) / (400 - 64)
    assert band_iou(truth & ~truth, truth) == 0


def test_the_band_ends_at_the_image() -> None:
    """Half an image: the band is 5 columns to either side, nothing along the image's edge."""
    truth = box(0, 0, 40, 20)
    assert band_iou(box(0, 0, 40, 25), truth) == 5 / 10
    assert band_iou(box(0, 18, 40, 20), truth) == 2 / 5


@pytest.mark.parametrize("truth", [box(0, 0, 0, 0), box(0, 0, 40, 40)])
def test_without_an_outline_there_is_no_band(truth: np.ndarray) -> None:
    assert np.isnan(band_iou(box(3, 3, 9, 9), truth))


def test_an_outline_is_inside_and_not_at_the_edge_of_the_image() -> None:
    expected = box(5, 5, 15, 15) & ~box(6, 6, 14, 14)
    assert (outline(box(5, 5, 15, 15)) == expected).all()
    assert outline(box(0, 0, 40, 20)).sum() == 40
    assert not outline(box(0, 0, 40, 40)).any()
    corner = box(0, 0, 40, 40)
    corner[10, 10] = False
    assert (outline(corner) == box(9, 9, 12, 12) & corner).all()


@pytest.mark.parametrize(("moved", "expected"), [(0, 1.0), (2, 1.0), (3, 0.0)])
def test_straight_outlines_are_the_same_within_the_tolerance(moved: int, expected: float) -> None:
    assert boundary_f(box(0, 0, 40, 20 + moved), box(0, 0, 40, 20)) == expected


def test_precision_and_recall_of_outlines() -> None:
    """The found mask is right, and has a second part with a third of all its outline."""
    truth = box(5, 5, 10, 21)  # an outline of 2 · 16 + 2 · 3 = 38
    extra = box(25, 5, 30, 9)  # and one of 2 · 4 + 2 · 3 = 14
    precision, recall = 38 / 52, 1.0
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f(truth | extra, truth) == pytest.approx(expected)
    assert boundary_f(truth, truth | extra) == pytest.approx(expected)


def test_masks_without_outlines() -> None:
    nothing, all_of_it, some = box(0, 0, 0, 0), box(0, 0, 40, 40), box(5, 5, 9, 9)
    assert boundary_f(nothing, nothing) == 1
    assert boundary_f(nothing, some) == boundary_f(some, nothing) == 0
    assert boundary_f(all_of_it, some) == 0


masks = arrays(bool, (12, 14), elements=st.booleans())


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Pillow's maximum over a square, for which the image ends where it ends."""
    image = Image.fromarray(mask.astype(np.uint8))
    padded = Image.new("L", (image.width + 2 * pixels, image.height + 2 * pixels))
    padded.paste(image, (pixels, pixels))
    larger = padded.filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.array(larger, dtype=bool)[pixels:-pixels, pixels:-pixels]


@given(masks, masks, st.integers(1, 4))
def test_distances_are_those_of_squares(found: np.ndarray, truth: np.ndarray, width: int) -> None:
    if not truth.any() or truth.all():
        return
    band = grown(truth, width) & grown(~truth, width)
    assert band_iou(found, truth, width) == iou(found & band, truth & band)
    edges = [mask & grown(~mask, 1) for mask in (found, truth)]
    if not edges[0].any():
        return
    precision = (edges[0] & grown(edges[1], width)).sum() / edges[0].sum()
    recall = (edges[1] & grown(edges[0], width)).sum() / edges[1].sum()
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert boundary_f(found, truth, width) == pytest.approx(expected)
