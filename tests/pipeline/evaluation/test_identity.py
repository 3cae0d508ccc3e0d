"""What decides the counts of an evaluation: as it has been since counts are written, key by key.

Outputs of before are gone on with only while this stays as it is: `since` is for what is new.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import AnnotateConfig, since
from pipeline.evaluation.layers import stage as layers
from pipeline.evaluation.perturbation import stage as perturbation
from pipeline.evaluation.points import stage as points
from pipeline.evaluation.segmentation import stage as segmentation
from pipeline.models.demo import ASSETS
from tests.pipeline.evaluation.formats import write_mat

POINTS, NAMES = str(ASSETS / "points.csv"), str(ASSETS / "class-descriptions.csv")
COCO, CLASSES = str(ASSETS / "instances.json"), str(ASSETS / "classes.yaml")
SHARDS = str(ASSETS / "shards" / "demo-00000.tar")
OTHER = {"max_pixels": 10**6, "limit_samples": 3, "limit_shards": 1, "allow_failed": 1}
MODEL = {"name": "legrad-demo", "pretrained": "demo", "precision": "float32"}
MAPS: dict[str, Any] = {
    "method": "legrad",
    "options": {},
    "layers": None,
    "algorithm": "closed_form",
    "empty_text": "auto",
    "empty_threshold": 0.8,
    "limit_samples": 3,
    "max_pixels": 1_000_000,
    "max_sample_bytes": 268_435_456,
    "model": MODEL | {"image_size": None},
    "templates": ["a photo of a {}."],
}
COCO_DIGEST, CLASSES_DIGEST = "7b806254d698f0c1", "50cc1b5f125f1b67"
POINTS_DIGEST, MASKS_DIGEST = "2cb7596f36d9442a", "23d1dfe640b68db5"


class _Seen(Exception):
    def __init__(self, identity: Mapping[str, Any]) -> None:
        self.identity = dict(identity)


@pytest.fixture
def identity_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`identity_of(stage, Config, **settings)`: what its counts would be kept under."""

    def see(config: object, shards: object, identity: Mapping[str, Any], *_: Any, **__: Any) -> Any:
        raise _Seen(identity)

    def of(evaluate: Callable[..., Any], kind: Any, **settings: Any) -> dict[str, Any]:
        with pytest.raises(_Seen) as seen:
            evaluate(kind(output=str(tmp_path / "out"), **OTHER | settings).absolute())
        return seen.value.identity

    for stage in (points, segmentation, perturbation, layers):
        monkeypatch.setattr(stage, "count_shards", see)
    return of


@pytest.fixture
def predictions(write_predictions: Callable[..., str]) -> tuple[str, dict[str, Any]]:
    """An annotation run, and what made it."""
    output = write_predictions({"scene00000": {"dog": np.ones((4, 4), dtype=bool)}})
    return output, AnnotateConfig(output=output).identity()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with a file of a known size and time."""
    path = tmp_path / "masks" / "scene00000.png"
    path.parent.mkdir()
    path.write_bytes(bytes(60))
    os.utime(path, ns=(0, 0))
    return str(path.parent)


def test_points_on_maps(identity_of: Callable[..., dict[str, Any]]) -> None:
    own = {"points": POINTS, "descriptions": NAMES, "input": SHARDS}
    without_effect = {"bootstrap": 7, "seed": 8, "missing_images": "empty", "retry_failed": True}
    found = identity_of(points.score_points, points.PointsConfig, **own, **without_effect)
    assert found == MAPS | {
        "metric": "points",
        "points": POINTS_DIGEST,
        "sweep": True,
        "gallery": True,
        "model": MODEL | {"image_size": 448},
    }


def test_points_on_masks(
    identity_of: Callable[..., dict[str, Any]], predictions: tuple[str, dict[str, Any]]
) -> None:
    own: dict[str, Any] = {"points": POINTS, "descriptions": NAMES}
    own |= {"predictions": predictions[0]}
    own |= {"sweep": False, "gallery": False, "images": SHARDS}
    own |= {"max_pixels": 10**8}  # the default: others count for nothing, and are refused
    assert identity_of(points.score_points, points.PointsConfig, **own) == {
        "metric": "points",
        "points": POINTS_DIGEST,
        "sweep": False,
        "gallery": False,
        "predictions": predictions[1],
        "limit_samples": 3,
    }


def test_segmentation_on_maps(identity_of: Callable[..., dict[str, Any]], folder: str) -> None:
    def found(**own: Any) -> dict[str, Any]:
        kind = segmentation.SegmentationConfig
        return identity_of(segmentation.score_segmentation, kind, input=SHARDS, **own)

    common = MAPS | {"metric": "segmentation", "model": MODEL | {"image_size": 224}}
    coco = {"coco": COCO_DIGEST, "mask_field": "", "threshold": 0.4}
    assert found(coco=COCO, threshold=0.4) == common | coco
    masks = {
        "masks": MASKS_DIGEST,
        "classes": CLASSES_DIGEST,
        "mask_field": "",
        "threshold": 0.5,
    }
    assert found(masks=folder, classes=CLASSES) == common | masks
    field = {"classes": CLASSES_DIGEST, "mask_field": "png", "threshold": 0.5}
    assert found(mask_field="png", classes=CLASSES) == common | field


def test_segmentation_of_imagenet(
    identity_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    write_mat(tmp_path / "a.mat", 1)
    (tmp_path / "wnids.txt").write_text("n00000000 dog\n")
    own: dict[str, Any] = {"mat": str(tmp_path / "a.mat"), "wnids": str(tmp_path / "wnids.txt")}
    own |= {"max_pixels": 10**8}
    found = identity_of(segmentation.score_segmentation, segmentation.SegmentationConfig, **own)
    assert len(found.pop("mat")) == 16  # HDF5 has times in it
    assert found == MAPS | {
        "metric": "segmentation",
        "max_pixels": 10**8,
        "wnids": "ddb61c112485bd39",
        "mask_field": "",
        "threshold": 0.5,
        "model": MODEL | {"image_size": 224},
    }


def test_segmentation_on_masks(
    identity_of: Callable[..., dict[str, Any]], predictions: tuple[str, dict[str, Any]]
) -> None:
    own = {"coco": COCO, "predictions": predictions[0], "max_pixels": 10**8}
    found = identity_of(segmentation.score_segmentation, segmentation.SegmentationConfig, **own)
    assert found == {
        "metric": "segmentation",
        "mask_field": "",
        "coco": COCO_DIGEST,
        "predictions": predictions[1],
        "limit_samples": 3,
    }


def test_perturbation(identity_of: Callable[..., dict[str, Any]]) -> None:
    def found(**own: Any) -> dict[str, Any]:
        kind = perturbation.PerturbationConfig
        return identity_of(perturbation.score_perturbation, kind, input=SHARDS, **own)

    common = MAPS | {"metric": "perturbation"}
    assert found() == common | {"classes": "76314738f7fe5be5", "label_field": ""}
    own = {"classes": "fed9e76d0b994645", "label_field": "labels"}
    assert found(classes=CLASSES, label_field="labels") == common | own


def test_the_gradient_over_the_layers(
    identity_of: Callable[..., dict[str, Any]], folder: str
) -> None:
    def found(**own: Any) -> dict[str, Any]:
        shared = {"study": "gradient", "input": SHARDS, "label_field": "unused"}
        return identity_of(layers.study_layers, layers.LayersConfig, **shared, **own)

    common = MAPS | {"metric": "gradient"}
    coco = {"coco": COCO_DIGEST, "per_layer_minmax": True}
    assert found(coco=COCO, per_layer_minmax=True) == common | coco
    masks = {"masks": MASKS_DIGEST, "classes": CLASSES_DIGEST, "per_layer_minmax": False}
    assert found(masks=folder, classes=CLASSES) == common | masks


@pytest.mark.parametrize(
    "kind",
    [
        partial(points.PointsConfig, points="p", descriptions="d", input="i"),
        partial(segmentation.SegmentationConfig, mask_field="png", classes=CLASSES, input="i"),
        partial(perturbation.PerturbationConfig, input="i"),
        partial(layers.LayersConfig, input="i"),
    ],
)
def test_a_new_setting_of_a_stage_is_in_the_identity_by_being_written(kind: partial[Any]) -> None:
    field = ("spice", int, since(default=7, before=0))
    later = dataclasses.make_dataclass("Later", [field], bases=(kind.func,), frozen=True)
    before = kind().identity()
    assert later(**kind.keywords, spice=0).identity() == before
    assert later(**kind.keywords).identity() == before | {"spice": 7}


def test_a_new_setting_is_in_the_identity_beside_masks(
    predictions: tuple[str, dict[str, Any]],
) -> None:
    field = ("spice", int, since(default=7, before=0))
    for kind, own in (
        (points.PointsConfig, {"points": "p", "descriptions": "d"}),
        (segmentation.SegmentationConfig, {"coco": COCO}),
    ):
        later = dataclasses.make_dataclass("Later", [field], bases=(kind,), frozen=True)
        settings = own | {"predictions": predictions[0]}
        assert later(**settings).identity() == kind(**settings).identity() | {"spice": 7}
