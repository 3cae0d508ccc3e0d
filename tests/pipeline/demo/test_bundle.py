"""What is bundled: shards, ground truth, points and weights that fit together."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from pipeline.demo.bundle import SCENES_PER_SHARD, SHARDS, SIDE, key_of
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.scenes import Scene
from pipeline.demo.sprites import CLASSES
from pipeline.evaluation.points.definition import pixels_of
from pipeline.evaluation.points.labels import read_labels
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import read_samples
from pipeline.models.demo import ASSETS, CONFIG, WEIGHTS, create

COUNT = SHARDS * SCENES_PER_SHARD


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return bundled_scenes()


@pytest.fixture(scope="module")
def truth() -> COCO:
    with redirect_stdout(StringIO()):
        return COCO(str(ASSETS / "instances.json"))


def test_the_ground_truth_loads_in_coco(truth: COCO, scenes: list[Scene]) -> None:
    assert len(truth.imgs) == COUNT == len(scenes)
    assert [c["name"] for c in truth.loadCats(truth.getCatIds())] == list(CLASSES)
    assert min(truth.anns) == min(truth.imgs) == min(truth.cats) == 1
    assert [image["file_name"] for image in truth.imgs.values()] == [
        f"{key_of(i)}.jpg" for i in range(COUNT)
    ]
    for annotation in list(truth.anns.values())[::7]:
        pixels = truth.annToMask(annotation).astype(bool)
        assert pixels.shape == (SIDE, SIDE)
        assert annotation["area"] == pixels.sum() > 0
        rows, columns = np.nonzero(pixels)
        left, top = columns.min(), rows.min()
        width, height = columns.max() + 1 - left, rows.max() + 1 - top
        assert annotation["bbox"] == [left, top, width, height]
        assert annotation["iscrowd"] == 0


def test_labels_are_the_classes_in_the_ground_truth(scenes: list[Scene]) -> None:
    samples = []
    for shard in find_shards([str(ASSETS / "shards")]):
        with Path(shard.location).open("rb") as stream:
            samples += list(read_samples(stream))
    assert [sample.key for sample in samples] == [key_of(i) for i in range(COUNT)]
    for sample, scene in zip(samples, scenes, strict=True):
        content = json.loads(sample.fields["json"])
        assert content == {"labels": list(scene.masks), "width": SIDE, "height": SIDE}
        assert sample.fields["txt"].decode() == scene.caption
        assert scene.image.shape == (SIDE, SIDE, 3)


def test_points_agree_with_the_masks(scenes: list[Scene]) -> None:
    pairs, _ = read_labels(str(ASSETS / "points.csv"), str(ASSETS / "class-descriptions.csv"))
    found = pairs.of_images(pairs.images)
    assert {
        image: {points.label.name for points in of_image} for image, of_image in found.items()
    } == {key_of(i): set(scene.masks) for i, scene in enumerate(scenes)}
    for i, scene in enumerate(scenes):
        for points in found[key_of(i)]:
            assert points.yes.any()
            where = pixels_of(points.x, points.y, SIDE, SIDE)
            assert (scene.masks[points.label.name][where] == points.yes).all()


def test_the_weights_are_small_and_load(scenes: list[Scene]) -> None:
    assert WEIGHTS.stat().st_size <= 12e6
    model = create()
    assert not model.training
    assert model.visual.image_size == (96, 96)
    assert json.loads(CONFIG.read_text())["text_cfg"]["width"] <= 64
