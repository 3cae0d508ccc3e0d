"""COCO ground truth: what is read of it, and what is left out or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipeline.errors import ConfigError, Reject
from pipeline.evaluation.segmentation.truth import CocoTruth
from pipeline.inputs.tars import RawSample

Run = Callable[..., Any]


def test_coco_regions_of_every_kind(tmp_path: Path) -> None:
    square = np.zeros((6, 8), dtype=np.uint8, order="F")
    square[1:3, 1:3] = 1
    rle = coco.encode(square)
    compressed = {"size": rle["size"], "counts": rle["counts"].decode()}
    runs = {"size": [6, 8], "counts": [0, 6, 42]}  # the first column
    polygon = [[4.0, 2.0, 8.0, 2.0, 8.0, 6.0, 4.0, 6.0]]
    regions = [(1, compressed, 0), (1, runs, 0), (2, polygon, 0), (2, compressed, 1)]
    content = {
        "images": [{"id": 5, "file_name": "a/x.jpg", "height": 6, "width": 8}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": c, "segmentation": s, "iscrowd": crowd}
            for i, (c, s, crowd) in enumerate(regions, 1)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = CocoTruth(str(tmp_path / "coco.json"))(RawSample(0, "b/x", {}))
    assert found is not None and found.names == ["dog", "cat"]
    first_column = np.zeros((6, 8), dtype=bool)
    first_column[:, 0] = True
    np.testing.assert_array_equal(found.masks[0], square.astype(bool) | first_column)
    assert found.masks[1].sum() == 16 and found.masks[1][2:, 4:].all()
    np.testing.assert_array_equal(found.ignored, square.astype(bool))
    assert found.image == "a/x" and CocoTruth(str(tmp_path / "coco.json")).of("y") is None
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ConfigError, match="not COCO ground truth"):
        CocoTruth(str(tmp_path / "other.json"))


GOOD = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]]


def coco_file(path: Path, names: list[str], annotations: list[Any]) -> str:
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 6, "width": 8} for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return str(path)


def region(image: int = 0, segmentation: Any = GOOD, **more: Any) -> dict[str, Any]:
    return {"id": 7, "image_id": image, "category_id": 1, "segmentation": segmentation, **more}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (region(segmentation=[]), "no segmentation"),
        (region(segmentation=None), "no segmentation"),
        (region(segmentation=[[1, 2, 3]]), "not a list of polygons"),
        (region(segmentation=[["a"] * 6]), "not a list of polygons"),
        (region(segmentation={"size": [6, 9], "counts": "0"}), "another size"),
        (region(segmentation={"size": [6, 8], "counts": [1, 2]}), "do not fill the image"),
        (region(segmentation={"size": [6, 8], "counts": 3}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": [50, -2]}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": "P"}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": "~~"}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": "1"}), "do not fill the image"),
        (region(segmentation=[[1e300] * 6]), "not a list of polygons"),
        (region(image=9), "no such image_id"),
        (region(image=[0]), "no such image_id"),
        (region(category_id=5), "no such category_id"),
        ("nonsense", "no mapping"),
        (region(iscrowd="0"), "iscrowd is neither 0 nor 1"),
    ],
)
def test_a_bad_annotation_takes_no_other_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: Any, said: str
) -> None:
    truth = CocoTruth(coco_file(tmp_path / "coco.json", ["x.jpg"], [bad, region()]))
    assert [len(ids) for ids in truth.left_out.values()] == [1]
    assert "1 annotations left out: " in (out := capsys.readouterr().out) and said in out
    found = truth(RawSample(0, "x", {}))
    assert found is not None and found.masks.sum() == 16


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("a", "a"),
        ("sub/a", "sub/a"),
        ("train/sub/a", "sub/a"),
        ("./sub/a", "sub/a"),
        ("other/b", "b"),
        ("b", "b"),
        ("c", "deep/c"),
        ("w", "win/w"),
        ("none", None),
    ],
)
def test_folders_tell_images_apart(tmp_path: Path, key: str, image: str | None) -> None:
    names = ["a.jpg", "sub/a.jpg", "b.jpg", "deep/c.jpg", "win\\w.jpg"]
    everywhere = [region(image=i) for i in range(len(names))]
    truth = CocoTruth(coco_file(tmp_path / "coco.json", names, everywhere))
    found = truth(RawSample(0, key, {}))
    assert (found.image if found else None) == image


def test_what_could_be_two_images_is_neither(tmp_path: Path) -> None:
    truth = CocoTruth(coco_file(tmp_path / "coco.json", ["x/a.jpg", "y/a.jpg"], [region()]))
    with pytest.raises(Reject, match=r"could be x/a and y/a: give keys"):
        truth(RawSample(0, "a", {}))
    with pytest.raises(ConfigError, match="two images are called a"):
        CocoTruth(coco_file(tmp_path / "twice.json", ["a.jpg", "./a.png"], []))


@pytest.mark.parametrize(
    ("what", "entry", "words"),
    [
        ("categories", {"id": 1, "name": "cat"}, "two categories have the id 1: dog and cat"),
        (
            "images",
            {"id": 0, "file_name": "b.jpg", "height": 8, "width": 8},
            r"two images have the id 0: \('a', ",
        ),
    ],
)
def test_two_things_with_one_id_are_refused(
    tmp_path: Path, what: str, entry: dict[str, Any], words: str
) -> None:
    path = Path(coco_file(tmp_path / "coco.json", ["a.jpg"], [region()]))
    content = json.loads(path.read_text("utf-8-sig"))
    content["categories"][0] |= {"id": 1, "name": "dog"}
    again = content | {what: content[what] * 2}  # the same again, as where files were merged
    path.write_text(json.dumps(again))
    CocoTruth(str(path))
    path.write_text(json.dumps(content | {what: [*content[what], entry]}))
    with pytest.raises(ConfigError, match=words):
        CocoTruth(str(path))


@pytest.mark.parametrize(
    "entry",
    ["x", {"id": 3, "file_name": None, "height": 8, "width": 8},
     {"id": 3, "file_name": "b.jpg", "height": 8}, {"id": 3, "file_name": "b.jpg", "height": 8,
      "width": float("inf")}],
)  # fmt: skip
def test_an_image_that_is_none_is_named(tmp_path: Path, entry: Any) -> None:
    path = Path(coco_file(tmp_path / "coco.json", ["a.jpg"], [region()]))
    content = json.loads(path.read_text("utf-8-sig"))
    path.write_text(json.dumps(content | {"images": [*content["images"], entry]}))
    with pytest.raises(ConfigError, match=r"the image ({'id': 3|x).* has not an id, a file_name"):
        CocoTruth(str(path))
