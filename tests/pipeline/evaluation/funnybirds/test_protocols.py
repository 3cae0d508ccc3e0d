"""Scores of attributions that are perfect, constant, inverted and shuffled, by hand."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.errors import Reject
from pipeline.evaluation.funnybirds.dataset import Bird, Birds, Files
from pipeline.evaluation.funnybirds.parts import THRESHOLDS, important, part_weights
from pipeline.evaluation.funnybirds.protocols import BIRD_COUNTS, score_bird
from pipeline.evaluation.funnybirds.scores import bird_scores
from tests.pipeline.evaluation.funnybirds.birds import (
    MARGIN,
    PARTS,
    PATCH,
    PLACES,
    SIDE,
    Toy,
    World,
    centre,
)

WEIGHTS = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
APART = World([(i, i % 3, i, i, i) for i in range(3)], [(0, 2), (1, 0), (2, 3)])
"""Three classes that differ in every part, so that each part alone tells a class."""
RELATED = World(
    [(0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (1, 1, 0, 0, 2), (2, 2, 2, 2, 3)],
    [(0, 1), (0, 0), (1, 0), (3, 2)],
)
"""Class 0 shares beak and eye with class 1, and foot and tail with class 2."""


def birds_of(world: World) -> Birds:
    classes = [dict(zip(PARTS, forms, strict=True)) for forms in world.classes]
    return Birds(classes, [Bird(i, *bird) for i, bird in enumerate(world.birds)])


def toy(world: World, kind: str = "perfect", objects: Iterable[float] = (0, 0, 0, 0)) -> Toy:
    count = len(world.classes)
    return Toy(world, np.tile(WEIGHTS, (count, 1)), np.tile([*objects], (count, 1)), kind)


def scores(world: World, subject: Toy, corrected: bool = False) -> dict:
    birds = birds_of(world)
    rows = [
        score_bird(bird, birds, Files("/birds"), subject, world.read, corrected).row
        for bird in birds.birds
    ]
    return bird_scores(pa.Table.from_pylist(rows, schema=BIRD_COUNTS))


def steps(*levels: tuple[float, float]) -> list[float]:
    """A curve: (up to which threshold, value), in order."""
    return [next(value for end, value in levels if t < end) for t in THRESHOLDS]


def test_perfect() -> None:
    found = scores(APART, toy(APART))
    # Of 15, the parts have 5, 4, 3, 2 and 1. The last class has no sufficient sets. An empty bird
    # is class 0, whose own bird so is never changed.
    assert found["curves"]["csdc"] == pytest.approx(steps((5 / 15, 2 / 3), (1, 0)))
    assert found["curves"]["pc"] == pytest.approx(steps((5 / 15, 1), (1, 1 / 3)))
    assert found["curves"]["dc"] == pytest.approx(steps((1 / 15, 2 / 3), (1, 0)))
    assert found["curves"]["d"] == pytest.approx([1.0] * 80, abs=1e-7)
    assert found["threshold"] == 0.01
    assert (found["accuracy"], found["sd"], found["bi"], found["ts"]) == (1, 1, 1, None)
    assert found["completeness"] == pytest.approx(((2 / 3 + 1 + 2 / 3) / 3 + 1) / 2)
    assert found["correctness"] == 1 and found["overall"] is None
    assert found["images"] == {
        "all": 3, "csdc": 3, "d": 2, "sd": 3, "ts": 0, "ts: no pair of classes": 3,
    }  # fmt: skip
    assert scores(APART, toy(APART), corrected=True)["csdc"] == 1


def test_constant() -> None:
    found = scores(APART, toy(APART, "constant"))
    one = (PATCH + 2 * MARGIN) ** 2 / SIDE**2  # 0.0244: beak, tail and each object; others twice
    assert found["curves"]["d"] == pytest.approx(steps((one, 0), (1, 1)), abs=1e-7)
    assert found["curves"]["csdc"] == pytest.approx(steps((2 * one, 2 / 3), (1, 0)))
    assert found["curves"]["pc"] == pytest.approx(steps((2 * one, 1), (1, 1 / 3)))
    assert found["curves"]["dc"] == pytest.approx(steps((one, 2 / 3), (1, 0)))
    assert found["threshold"] == min(t for t in THRESHOLDS if t > one)
    # Ranks 5 4 3 2 1 against 1.5 4 4 1.5 4.
    assert found["sd"] == pytest.approx(0.5 - 0.5 * 2.5 / np.sqrt(10 * 7.5))


def test_inverted() -> None:
    found = scores(APART, toy(APART, "inverted"))
    # The sum is below 0, and so are the bounds: important is what has less than its share of -15,
    # and every object.
    assert found["curves"]["csdc"] == pytest.approx(steps((1 / 15, 0), (1, 2 / 3)))
    assert found["curves"]["pc"] == pytest.approx(steps((1 / 15, 1 / 3), (1, 1)))
    assert found["curves"]["dc"] == pytest.approx(steps((5 / 15, 0), (1, 2 / 3)))
    assert found["curves"]["d"] == pytest.approx([0.0] * 80, abs=1e-7)
    assert found["sd"] == pytest.approx(0, abs=1e-9)
    assert found["threshold"] == min(t for t in THRESHOLDS if t > 1 / 3)


def test_target_sensitivity() -> None:
    found = scores(RELATED, toy(RELATED))
    assert found["ts"] == 1 and found["images"]["ts"] == 2
    assert found["images"]["ts: no pair of classes"] == 2
    assert scores(RELATED, toy(RELATED, "inverted"))["ts"] == 0
    assert scores(RELATED, toy(RELATED, "constant"))["ts"] == 0  # the same for every class


def test_images_to_which_the_model_is_not_sensitive_do_not_count() -> None:
    subject = toy(RELATED)
    subject.weights[1, :2] = 0  # class 1 loses nothing by its own parts
    found = scores(RELATED, subject)
    assert found["ts"] is None
    assert found["images"]["ts: the model is not sensitive"] == 2
    assert (1, 2) not in {tuple(sorted(set(asked) - {0})) for asked in subject.asked}


def test_where_no_two_classes_are_apart() -> None:
    world = World([(0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (0, 1, 0, 2, 2), (1, 0, 2, 0, 3)], [(0, 0)])
    birds = birds_of(world)
    taken = birds.rivals(0)
    assert taken is not None and (taken.first, taken.second) == (
        2,
        3,
    )  # disjoint: beak foot, eye tail
    near = birds_of(replace(world, classes=world.classes[:3]))
    last = near.rivals(0)
    assert last is not None and (last.first, last.second) == (1, 2)  # both share the beak
    assert near.rivals(0, corrected=True) is None
    assert birds_of(replace(world, classes=world.classes[:2])).rivals(0) is None


@pytest.mark.parametrize("corrected", [False, True])
def test_sufficient_sets(corrected: bool) -> None:
    birds = birds_of(RELATED)
    # Shared with class 1: beak, eye; with class 2: foot, tail. A wing tells, and a part of each.
    pairs = itertools.product(("beak", "eye"), ("foot", "tail"))
    assert set(birds.sufficient(0, corrected)) == {frozenset({"wing"}), *map(frozenset, pairs)}
    alone = {frozenset({part}) for part in PARTS}
    assert set(birds.sufficient(3, corrected)) == (alone if corrected else set())


def test_shuffled_attributions_agree_with_half_on_average() -> None:
    world = World(APART.classes, [(1, 0)] * 120)
    orders = itertools.permutations(WEIGHTS)
    subject = toy(world)

    def shuffled(image: torch.Tensor, classes: object) -> tuple[torch.Tensor, bool]:
        drawn = torch.zeros(1, SIDE, SIDE)
        for part, mass in zip(PARTS, next(orders), strict=True):
            row, column = centre(PLACES[part][0])
            drawn[0, row, column] = float(mass)
        return drawn, False

    subject.attributions = shuffled  # type: ignore[method-assign]
    assert scores(world, subject)["sd"] == pytest.approx(0.5)


def test_what_is_relevant() -> None:
    # Of a logit of 15 + 1 + 0.8 - 3, 5 % are 0.69: object 0 and 1 are relevant, 2 hinders, 3 not.
    world = World(APART.classes, [(1, 4)])
    found = scores(world, toy(world, "constant", objects=(1, 0.8, -3, 0.1)))
    assert found["bi"] == 0.5
    one = (PATCH + 2 * MARGIN) ** 2 / SIDE**2
    assert found["curves"]["d"] == pytest.approx(steps((one, 0), (1, 1)), abs=1e-7)
    # All that is relevant by itself: nothing is left to be distracted by.
    alone = World(APART.classes, [(1, 0)])
    assert scores(alone, toy(alone, "constant"))["images"]["d"] == 0


def test_a_wrong_prediction_is_explained_for_itself() -> None:
    world = World(APART.classes, [(1, 0)])
    subject = toy(world)
    subject.weights[1] = -1  # so that class 0, of which nothing is visible, is predicted
    found = scores(world, subject)
    assert subject.asked == [(0, 1)]
    assert found["accuracy"] == 0 and found["csdc"] is None and found["completeness"] is None
    assert found["curves"]["pc"] == [1.0] * 80  # nothing important is removed: all of it stays
    assert found["sd"] is None  # all parts lower the score by the same


def test_what_a_bird_has_two_of_is_dilated_one_by_one() -> None:
    part_map = torch.zeros(3, 8, 12, dtype=torch.uint8)
    part_map[:, 4, 4] = torch.tensor([255, 255, 253])
    part_map[:, 4, 6] = torch.tensor([255, 255, 254])
    part_map[:, 0, 11] = torch.tensor([204, 204, 205])
    weights = part_weights(part_map, 2)
    eye = weights[PARTS.index("eye")]
    assert eye[4].tolist() == [0, 0, 1, 1, 2, 2, 2, 1, 1, 0, 0, 0] and eye.sum() == 50
    assert weights[5].sum() == 0 and weights[6].sum() == 9  # cut off at the corner
    assert part_weights(part_map, 60).shape == (65, 8, 12)


def test_importance_is_more_than_its_bound() -> None:
    at = THRESHOLDS[7]
    found = important(np.array([at, np.nextafter(at, 1), -1.0]), 1.0)
    assert found[7].tolist() == [False, True, False]
    assert important(np.zeros(2), 0.0).sum() == 0  # an empty map finds nothing


def test_what_is_not_finite_is_turned_down() -> None:
    subject = toy(APART)
    subject.explain = lambda *_: torch.full((SIDE, SIDE), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(Reject, match="not_finite"):
        scores(APART, subject)
