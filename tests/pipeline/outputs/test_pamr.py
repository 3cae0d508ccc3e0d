"""Refinement by colour against its definition, pixel by pixel, and against the authors' program."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.outputs.refinement import pamr as module
from pipeline.outputs.refinement.pamr import affinities, pamr

REFERENCE = Path(__file__).parents[2] / "reference" / "published_pamr.npz"


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def heat(count: int, height: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed))


def literally(maps, guide, dilations, iterations):
    """The definition in Python's own floats: a pixel, its neighbours one by one, their weights."""
    colours, values = guide.tolist(), maps.double().tolist()
    height, width = len(colours[0]), len(colours[0][0])

    def at(plane, y, x):
        return plane[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)]

    def kernel(y, x):
        steps = (-1, 0, 1)
        return [[(y + d * i, x + d * j) for i in steps for j in steps] for d in dilations]

    weights = {}
    for y in range(height):
        for x in range(width):
            around = [place for places in kernel(y, x) for place in places]
            neighbours = [p for p in around if p != (y, x)]
            deviations = [
                statistics.stdev([float(at(plane, *place)) for place in around])
                for plane in colours
            ]
            likeness = [
                statistics.mean(
                    -abs(at(plane, *place) - plane[y][x]) / (0.1 * deviation + 1e-8)
                    for plane, deviation in zip(colours, deviations, strict=True)
                )
                for place in neighbours
            ]
            shares = [math.exp(k - max(likeness)) for k in likeness]
            weights[y, x] = [(p, s / sum(shares)) for p, s in zip(neighbours, shares, strict=True)]
    for _ in range(iterations):
        values = [
            [
                [sum(s * at(plane, *p) for p, s in weights[y, x]) for x in range(width)]
                for y in range(height)
            ]
            for plane in values
        ]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("dilations", [(1,), (1, 2), (3, 1, 4)])
def test_it_is_its_definition(dilations: tuple[int, ...]) -> None:
    guide, maps = image(7, 9), heat(2, 7, 9)
    guide[:, :3, :4] = guide[:, :1, :1]  # a place without any deviation

    expected = literally(maps, guide, dilations, 3)

    torch.testing.assert_close(
        pamr(maps, guide, dilations, 3).double(), expected, rtol=0, atol=1e-6
    )


def test_it_is_what_the_authors_program_computes() -> None:
    with np.load(REFERENCE) as reference:
        cases = json.loads(str(reference["about"]))["cases"]
        guide, maps = (torch.from_numpy(reference[name]) for name in ("guide", "maps"))
        for name, (dilations, iterations) in cases.items():
            expected = torch.from_numpy(reference[f"refined/{name}"])
            found = pamr(maps, guide, dilations, iterations)
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        default = pamr(maps, guide)
        torch.testing.assert_close(
            default, torch.from_numpy(reference["refined/default"]), rtol=0, atol=2e-6
        )


def test_in_one_colour_it_is_the_mean_of_the_neighbours() -> None:
    maps = torch.zeros(1, 5, 5)
    maps[0, 2, 2] = 1

    (once,) = pamr(maps, torch.full((3, 5, 5), 7, dtype=torch.uint8), (1,), 1)

    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1 / 8
    expected[2, 2] = 0  # a pixel is no neighbour of its own
    torch.testing.assert_close(once, expected)


def test_an_edge_stops_heat() -> None:
    guide = torch.zeros(3, 12, 16, dtype=torch.uint8)
    guide[:, :, 8:] = 200
    maps = torch.zeros(1, 12, 16)
    maps[0, :, 2:11] = 1  # three columns too far, and two too few

    (refined,) = pamr(maps, guide, (1, 2), 40)

    assert refined[:, :8].min() > 0.7
    assert refined[:, 8:].max() < 0.7
    assert (refined[:, 7] - refined[:, 8]).min() > 0.3
    (without_edge,) = pamr(maps, torch.zeros_like(guide), (1, 2), 40)
    assert (without_edge[:, 7] - without_edge[:, 8]).abs().max() < 0.1


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    dilations=st.lists(st.integers(1, 30), min_size=1, max_size=5, unique=True),
    seed=st.integers(0, 1000),
    flat=st.booleans(),
)
def test_shares_sum_to_one_and_heat_stays_in_its_range(
    height: int, width: int, dilations: list[int], seed: int, flat: bool
) -> None:
    guide = image(height, width, seed)
    if flat:
        guide[:, : height // 2] = 9
    maps = heat(2, height, width, seed)

    alpha = affinities(guide, dilations)
    refined = pamr(maps, guide, dilations, 3)

    assert alpha.shape == (8 * len(dilations), height, width)
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(0), torch.ones(height, width))
    assert refined.min() >= maps.min() - 1e-5
    assert refined.max() <= maps.max() + 1e-5


def test_maps_do_not_touch_each_other_nor_depend_on_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guide, maps = image(24, 30), heat(5, 24, 30)
    before = maps.clone()
    together = pamr(maps, guide)
    assert torch.equal(maps, before)
    assert torch.equal(pamr(maps[:0], guide), maps[:0])
    for one, alone in zip(together, maps, strict=True):
        assert torch.equal(pamr(alone[None], guide)[0], one)

    monkeypatch.setattr(module, "CHUNK_PIXELS", 2 * 24 * 30)
    assert torch.equal(pamr(maps, guide), together)


def test_it_turns_with_the_image() -> None:
    guide, maps = image(10, 14), heat(1, 10, 14)
    turned = pamr(maps.transpose(1, 2).contiguous(), guide.transpose(1, 2).contiguous())
    torch.testing.assert_close(turned.transpose(1, 2), pamr(maps, guide))
