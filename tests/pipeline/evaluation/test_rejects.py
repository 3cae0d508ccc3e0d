"""Annotation and every evaluation that reads images turn the same samples down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import annotate, evaluate
from pipeline.models.demo import ASSETS
from pipeline.outputs.ledger import Ledger
from tests.pipeline.evaluation.conftest import LOCAL
from tests.pipeline.stand_ins import Labelled, MakeTar, Write

MOST_BYTES = 100_000
TRUTH = {
    "images": [{"id": 0, "file_name": "good.jpg", "height": 30, "width": 40}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [
        {"image_id": 0, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 20, 0, 20, 20]]}
    ],
}
POINTS = "ImageId,X,Y,Label,EstimatedYesNo\ngood,0.5,0.5,/m/d,yes\n"
COMMANDS: dict[str, tuple[Callable[[list[str]], int], tuple[str, ...]]] = {
    "annotate": (annotate.main, ()),
    "points": (evaluate.main, ("points", "--points", "{points}", "--descriptions", "{names}")),
    "segmentation": (evaluate.main, ("segmentation", "--coco", "{truth}")),
    "perturbation": (
        evaluate.main,
        ("perturbation", "--classes", str(ASSETS / "classes.yaml"), "--label_field", "labels"),
    ),
    "layers": (evaluate.main, ("layers", "--study", "gradient", "--coco", "{truth}")),
}


@pytest.fixture
def shards(
    tar: MakeTar, labelled: Labelled, picture: Callable[..., bytes], write_shards: Write
) -> str:
    """A good sample, one with two images, one with too many bytes, one whose key is taken."""
    good = labelled("good", ["dog"])
    twice = [*labelled("twice", ["dog"]), ("twice.jpg", picture(1))]
    large = [*labelled("large", ["dog"]), ("large.bin", bytes(MOST_BYTES))]
    return write_shards(a=tar([*good, *twice, *large, *labelled("good", ["dog"])]))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_samples_are_rejected_for_the_same_reasons(
    name: str, shards: str, tmp_path: Path
) -> None:
    main, arguments = COMMANDS[name]
    contents = {
        "truth": json.dumps(TRUTH),
        "points": POINTS,
        "names": "LabelName,DisplayName\n/m/d,Dog\n",
    }
    for file, text in contents.items():
        (tmp_path / file).write_text(text)
    paths: dict[str, Any] = {file: tmp_path / file for file in contents}
    output = str(tmp_path / "out")
    flags = [*(argument.format(**paths) for argument in arguments), "--input", shards]
    flags += ["--output", output, "--max_sample_bytes", str(MOST_BYTES), *LOCAL]
    flags += ["--model.image_size", "96"]
    flags += ["--max_reject_fraction", "1"] if name == "annotate" else []
    assert main(flags) == 0
    (commit,) = Ledger(output).commits()
    assert commit.rejects == {"duplicate_field": 1, "duplicate_key": 1, "too_large": 1}
    assert commit.statuses["rejected"] == 3 and commit.samples == 4
