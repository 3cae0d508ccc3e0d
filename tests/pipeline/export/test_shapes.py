"""Parts and outlines of masks, against the pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path as Outlined

from pipeline.export.components import split
from pipeline.export.polygons import outlines
from pipeline.outputs.masks import decode, encode, measure
from tests.pipeline.export.made import box

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)).filter(np.any)


def encoded(mask: np.ndarray) -> tuple[object, list[float]]:
    (rle,) = encode(np.asfortranarray(mask[..., None], dtype=np.uint8))
    return rle, measure(rle)[1]


def fill(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Parts of a mask by walking from pixel to pixel."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    parts = []
    while left:
        ahead, part = [left.pop()], set()
        while ahead:
            row, column = ahead.pop()
            part.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            ahead += near
        parts.append(part)
    return parts


@given(MASKS, st.sampled_from([0.0, 0.2, 3.0]))
def test_parts_are_those_that_walking_finds(mask: np.ndarray, least: float) -> None:
    smallest = least * mask.size if least < 1 else least
    wanted = [part for part in fill(mask) if len(part) >= smallest]
    found = split(*encoded(mask), least)
    pixels = [set(map(tuple, np.argwhere(decode(p.segmentation)).tolist())) for p in found]
    assert sorted(map(sorted, pixels)) == sorted(map(sorted, wanted))
    assert [(part.area, part.bbox) for part in found] == [measure(p.segmentation) for p in found]


def rasterised(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centres are inside."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    return (
        Outlined(np.vstack([points, points[:1]]), closed=True)
        .contains_points(centres)
        .reshape(shape)
    )


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes, which sides of pixels alone would not connect to the outside."""
    outside = ~np.pad(mask, 1)
    reached = np.zeros_like(outside)
    reached[0, 0] = True
    while True:
        spread = reached.copy()
        for axis in (0, 1):
            for step in (1, -1):
                spread |= np.roll(reached, step, axis)
        spread &= outside
        if (spread == reached).all():
            return ~reached[1:-1, 1:-1]
        reached = spread


@given(MASKS)
def test_the_centres_inside_of_the_outlines_are_the_mask_with_its_holes_filled(
    mask: np.ndarray,
) -> None:
    parts = outlines(mask)
    covered = np.zeros_like(mask)
    for part in parts:
        covered |= rasterised(part.points, mask.shape)
    assert (covered >= mask).all()
    if not sum(part.holes for part in parts):
        assert (covered == mask).all()
    assert (covered <= filled(mask)).all()
    assert [part.area for part in parts] == sorted((p.area for p in parts), reverse=True)


def test_a_ring_has_a_hole_and_a_straight_side_no_points_within() -> None:
    ring = box((12, 14), (2, 3, 10, 11), hole=[(5, 5, 8, 8)])
    (part,) = outlines(ring)
    assert part.holes == 1
    assert len(part.points) == 8  # corners are cut
    assert part.points.min(0).tolist() == [3, 2] and part.points.max(0).tolist() == [11, 10]
    two = outlines(box((12, 14), (0, 0, 2, 2), (5, 5, 12, 14)))
    assert [part.holes for part in two] == [0, 0]
    assert outlines(np.zeros((3, 3), bool)) == []
