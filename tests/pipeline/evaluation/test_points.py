"""p-mIoU by hand: 2 images x 2 classes, and what must not count."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnnotateConfig
from pipeline.evaluation.points import Point, PointCounts, pixel_of, read_points, score_annotations
from pipeline.masks import encode, measure
from pipeline.schema import ANNOTATIONS, footer, image_id, to_parquet

DESCRIPTIONS = "LabelName,DisplayName\n/m/d,dog\n/m/c,cat\n/m/b,Bird\n"
# Masks are the left half of each 2 x 4 image: x < 0.5.
POINTS = """ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel
0001,0.10,0.50,/m/d,yes,ih,1,0,0,
0001,0.20,1.00,/m/d,yes,ih,1,0,0,
0001,1.00,0.50,/m/d,Yes,ih,1,0,0,
0001,0.49,0.50,/m/d,no,ih,0,1,0,
0001,0.50,0.50,/m/d,no,ih,0,1,0,
0001,0.10,0.10,/m/d,unsure,ih,0,0,1,
0002,0.90,0.10,/m/d,yes,ih,1,0,0,
0002,0.00,0.00,/m/c,yes,ih,1,0,0,
0002,0.00,0.00,/m/c,yes,cc,1,0,0,
0002,0.30,0.30,/m/c,yes,ih,1,0,0,
0002,0.30,0.30,/m/c,no,cc,0,1,0,
0001,0.10,0.10,/m/c,no,ih,0,1,0,
0001,0.10,0.10,/m/b,no,ih,0,1,0,
"""


@pytest.fixture
def points(tmp_path: Path) -> dict[tuple[str, str], list[Point]]:
    (tmp_path / "points.csv").write_text(POINTS)
    (tmp_path / "descriptions.csv").write_text(DESCRIPTIONS)
    return read_points(tmp_path / "points.csv", tmp_path / "descriptions.csv")


def test_rows_are_read_by_pair(points: dict[tuple[str, str], list[Point]]) -> None:
    assert {pair: len(of_pair) for pair, of_pair in points.items()} == {
        ("0001", "dog"): 5,  # without the one that is unsure
        ("0002", "dog"): 1,
        ("0002", "cat"): 1,  # twice the same counts once, and a contradiction not at all
        ("0001", "cat"): 1,
        ("0001", "Bird"): 1,
    }
    assert points["0002", "cat"] == [Point(0.0, 0.0, True)]


def test_the_last_pixels_have_the_edges() -> None:
    assert pixel_of(Point(1.0, 1.0, True), 2, 4) == (1, 3)
    assert pixel_of(Point(0.0, 0.0, True), 2, 4) == (0, 0)
    assert pixel_of(Point(0.5, 0.49, True), 2, 4) == (0, 2)


def output(folder: Path, *pairs: tuple[str, str | None]) -> str:
    """A run whose masks are the left half of 2 x 4 images."""
    left = np.zeros((2, 4, 1), dtype=np.uint8, order="F")
    left[:, :2] = 1
    (segmentation,) = encode(left)
    area, bbox = measure(segmentation)
    row = {
        **dict(shard="s", sample_index=0, height=2, width=4, prompt_index=0, prompt="a photo"),
        **dict(category_id=None, score=0.5, raw_max=1.0, heat_mean=1.0, threshold=0.5, area=area),
        **dict(bbox=bbox, segmentation=segmentation, heat=None, heat_shape=None),
    }
    rows = [
        row | {"key": key, "image_id": image_id("s", key), "category": category}
        for key, category in pairs
    ]
    (folder / "annotations").mkdir(parents=True)
    data = to_parquet(rows, ANNOTATIONS, footer(AnnotateConfig().results()))
    (folder / "annotations" / "s.parquet").write_bytes(data)
    return str(folder)


def test_the_fixture_by_hand(points: dict[tuple[str, str], list[Point]], tmp_path: Path) -> None:
    found = output(
        tmp_path / "out",
        ("0001", "dog"),
        ("0002", "cat"),
        ("0001", "cat"),  # no yes point: not evaluated
        ("0001", None),  # a caption
        ("0003", "dog"),  # no point at all
    )
    masks, control = score_annotations(found, points)
    # Dog: of 0001, two yes points and one no point lie in the left half, and one yes point does
    # not; 0002 has no mask, so that its yes point is missed. Cat: its one yes point is hit.
    assert (masks.tp["dog"], masks.fp["dog"], masks.fn["dog"]) == (2, 1, 2)
    assert (masks.tp["cat"], masks.fp["cat"], masks.fn["cat"]) == (1, 0, 0)
    assert masks.iou() == {"dog": 2 / 5, "cat": 1.0}
    assert masks.p_miou() == pytest.approx((2 / 5 + 1) / 2)  # not ½ (pairs), not ½ (micro)
    # All foreground: yes / (yes + no) per class.
    assert control.iou() == {"dog": 4 / 6, "cat": 1.0}


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


def test_counts_merge_by_addition() -> None:
    mask = np.array([[True, False]])
    batches = [[Point(0.1, 0.5, True)], [Point(0.9, 0.5, True), Point(0.2, 0.5, False)]]
    first, second, both = PointCounts(), PointCounts(), PointCounts()
    first.update("dog", mask, batches[0])
    second.update("dog", mask, batches[1])
    for batch in batches:
        both.update("dog", mask, batch)
    assert first + second == both
    assert both.iou() == {"dog": 1 / 3}
