"""The scores of FunnyBirds' authors' own code on the same synthetic birds and attributions.

`tests/reference/make_funnybirds_reference.py` has made them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from pipeline.evaluation.funnybirds.dataset import Files
from pipeline.evaluation.funnybirds.parts import THRESHOLDS
from pipeline.evaluation.funnybirds.protocols import BIRD_COUNTS, score_bird
from pipeline.evaluation.funnybirds.scores import bird_scores
from tests.pipeline.evaluation.funnybirds.birds import SIDE, Toy, World
from tests.pipeline.evaluation.funnybirds.test_protocols import birds_of

MADE = Path(__file__).parents[3] / "reference" / "published_funnybirds.npz"
KINDS = ("signed", "positive", "sparse", "negative", "agnostic")


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    with np.load(MADE) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_scores(made: dict[str, Any], kind: str) -> None:
    about = json.loads(str(made["about"]))
    world = World([tuple(forms) for forms in about["classes"]], about["birds"])
    toy = Toy(world, made["weights"], made["objects"])
    birds, maps = birds_of(world), torch.from_numpy(made[f"maps/{kind}"])
    rows = []
    for bird in birds.birds:

        def stored(_: object, classes: list[int], of: int = bird.number) -> Any:
            return F.interpolate(maps[None, of, list(classes)], (SIDE, SIDE))[0], False

        toy.attributions = stored  # type: ignore[method-assign]
        rows.append(score_bird(bird, birds, Files("/"), toy, world.read, corrected=False).row)
    found = bird_scores(pa.Table.from_pylist(rows, schema=BIRD_COUNTS))
    theirs = about["scores"][kind]
    assert theirs["thresholds"] == THRESHOLDS.tolist()
    for name in ("accuracy", "bi", "sd", "ts"):
        assert found[name] == pytest.approx(theirs[name], abs=1e-6), name
    for name in ("csdc", "pc", "dc", "d"):
        assert found["curves"][name] == pytest.approx(theirs[name], abs=1e-9), name
    together = np.sum([np.array(theirs[n]) / 3 for n in ("csdc", "pc", "dc")], 0) + theirs["d"]
    at = theirs["thresholds"].index(found["threshold"])
    assert together[at] == pytest.approx(together.max()) and found["pc"] == pytest.approx(
        theirs["pc"][at]
    )
    assert 0 < found["accuracy"] < 1 and (kind != "agnostic" or found["ts"] == 0)
    assert {name for name, count in found["images"].items() if count} >= {"all", "csdc", "d", "sd"}
