"""The perturbation stage: areas and orders by hand, and the model's own answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.demo.sprites import CLASSES
from pipeline.errors import Reject
from pipeline.evaluation.class_names import ClassNames
from pipeline.evaluation.perturbation.counters import (
    CURVES,
    IMAGE_COUNTS,
    STEPS,
    area_under_curve,
    perturbation_scores,
    perturbed,
    removal_order,
)
from pipeline.inputs.tars import RawSample
from pipeline.models.demo import ASSETS

Run = Callable[..., Any]


def test_areas_by_hand() -> None:
    assert area_under_curve(0.7, [0.7] * 9) == pytest.approx(63.0)  # constant a: 90 a
    assert area_under_curve(1.0, [round(1 - x, 1) for x in STEPS]) == pytest.approx(49.5)


def test_orders_by_hand() -> None:
    heat = torch.tensor([[0.5, 1.0], [0.0, 0.5]])
    assert removal_order(heat, "positive").tolist() == [1, 0, 3, 2]
    assert removal_order(heat, "negative").tolist() == [2, 0, 3, 1]
    # Ties go in ascending order for both signs: a map of nothing is erased line by line.
    flat = torch.zeros(2, 3)
    for sign in ("positive", "negative"):
        assert removal_order(flat, sign).tolist() == list(range(6))


def test_the_negative_order_is_the_positive_one_of_the_inverted_map() -> None:
    heat = torch.rand(20, 20, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert torch.equal(removal_order(heat, "negative"), removal_order(-heat, "positive"))


def test_removed_pixels_are_black_and_counted_from_the_clean_image() -> None:
    pixels = torch.full((3, 224, 224), 200, dtype=torch.uint8)
    images = perturbed(pixels, torch.arange(224 * 224))
    black = (images == 0).all(1).sum((1, 2)).tolist()
    assert black == [int(50176 * step) for step in STEPS]
    assert set(images.unique().tolist()) == {0, 200}
    assert (pixels == 200).all()


def test_scores_by_hand() -> None:
    # Two images, the second predicted wrongly: accuracy is against the true class throughout.
    first = {"image": "a", "target": 1, "predicted": 1} | dict.fromkeys(CURVES, [True] * 9)
    second = {"image": "b", "target": 1, "predicted": 2} | dict.fromkeys(CURVES, [False] * 9)
    second["negative_target"] = [True] + [False] * 8
    scores = perturbation_scores(pa.Table.from_pylist([first, second], schema=IMAGE_COUNTS))
    assert scores["accuracy"] == 0.5
    assert scores["curves"]["negative_target"] == [1.0] + [0.5] * 8
    assert scores["auc"]["negative_target"] == pytest.approx(50.0)
    assert scores["auc"]["positive_predicted"] == pytest.approx(45.0)


def test_labels_of_samples() -> None:
    by_id = ClassNames(["dog", "cat"], [7, 9])
    assert by_id.target(RawSample(0, "k", {"cls": b"9\n"})) == 1
    assert by_id.target(RawSample(0, "k", {})) is None
    for bad in (b"8", b"-7", b"\xff", b"dog"):
        with pytest.raises(Reject, match="bad_label"):
            by_id.target(RawSample(0, "k", {"cls": bad}))
    by_name = ClassNames(["dog", "cat"], [7, 9], "labels")
    assert by_name.target(RawSample(0, "k", {"json": b'{"labels": ["cat"]}'})) == 1
    assert by_name.target(RawSample(0, "k", {"json": b'{"labels": ["cat", "dog"]}'})) is None
    for bad in (b'{"labels": ["cow"]}', b"[]", b"{"):
        with pytest.raises(Reject, match="bad_label"):
            by_name.target(RawSample(0, "k", {"json": bad}))
    for blanks in (b'["cat", null, " "]', b'[" cat\\n"]', b'["\\u200b", "cat"]'):
        json = b'{"labels": %s}' % blanks
        assert by_name.target(RawSample(0, "k", {"json": json})) == 1
    assert by_name.target(RawSample(0, "k", {"json": b'{"labels": [null]}'})) is None
    assert by_id.target(RawSample(0, "k", {"cls": b"\xef\xbb\xbf9"})) == 1
    assert by_id.target(RawSample(0, "k", {"cls": b" \n"})) is None
    imagenet = ClassNames.load("", "")
    assert len(imagenet.names) == 1000 and imagenet.names[0] == "tench"


def test_the_class_file_has_the_demos_classes(classes: str) -> None:
    found = ClassNames.load(classes, "labels")
    assert (found.names, found.ids) == (list(CLASSES), list(range(1, len(CLASSES) + 1)))


def test_the_demo_is_seen_where_the_map_is(
    rendered: None, run: Run, classes: str, tmp_path: Path
) -> None:
    flags = ["--input", ASSETS / "shards" / "demo-00000.tar", "--limit_samples", 24]
    found = run("perturbation", *flags, "--classes", classes, "--label_field", "labels")
    auc = found["scores"]["auc"]
    assert auc["negative_target"] > auc["positive_target"] + 30
    assert max(auc.values()) <= 90
    assert found["images"]["scored"] + found["images"]["without one class"] == 24
    with Image.open(tmp_path / "scores" / "curves.png") as curves:
        assert curves.width > 500


def test_a_shard_as_of_imagenet(run: Run, imagenet_shard: str) -> None:
    found = run("perturbation", "--input", imagenet_shard)
    assert found["images"] == {"scored": 3}
    assert found["settings"]["metric"] == "perturbation"


def test_settings_that_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("perturbation", code=2)
    assert "--input is needed" in capsys.readouterr().err
    shard = ASSETS / "shards" / "demo-00000.tar"
    run("perturbation", "--input", shard, "--limit_samples", 2, "--method", "nope", code=2)
    assert "--method" in capsys.readouterr().err
    run("perturbation", "--input", shard, "--limit_samples", 2, code=2, output="unlabelled")
    assert "no image of the shards has exactly one class" in capsys.readouterr().err
