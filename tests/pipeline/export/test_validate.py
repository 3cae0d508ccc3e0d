"""The check of a COCO file: good ones have no findings, and every fault is found."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from jobs import export
from pipeline import storage
from pipeline.export import json_stream
from pipeline.export.validate import ValidateConfig, validate
from tests.pipeline.export.made import HARD, make_run

Data = dict[str, Any]


def findings(path: Path) -> list[str]:
    return list(validate(ValidateConfig(str(path))))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_run(str(folder / "out"), HARD)
    for rle in ("compressed", "uncompressed"):
        places = ("--predictions", str(folder / "out"), "--output", str(folder / rle))
        assert export.main(["coco", *places, "--rle", rle]) == 0
    places = ("--predictions", str(folder / "out"), "--output", str(folder / "results"))
    assert export.main(["coco-results", *places]) == 0
    return folder


@pytest.mark.parametrize("name", ["compressed", "uncompressed"])
def test_what_is_exported_has_no_findings(name: str, good: Path) -> None:
    assert findings(good / name / "instances.json") == []


def at(*path: Any, **values: Any) -> Callable[[Data], None]:
    """Set keys of the record at a path."""

    def change(data: Data) -> None:
        record: Any = data
        for key in path:
            record = record[key]
        record.update(values)

    return change


def without(*path: Any) -> Callable[[Data], None]:
    """Delete what is at a path."""

    def change(data: Data) -> None:
        record: Any = data
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return change


def repeat_object(data: Data) -> None:
    data["annotations"].append(copy.deepcopy(data["annotations"][0]))


def repeat_image_name(data: Data) -> None:
    data["images"][1]["file_name"] = data["images"][0]["file_name"]


def repeat_image_id(data: Data) -> None:
    data["images"].append(data["images"][0] | {"file_name": "other.jpg"})


def swap_size(data: Data) -> None:
    data["annotations"][0]["segmentation"]["size"].reverse()


def cut_counts(data: Data) -> None:
    rle = data["annotations"][0]["segmentation"]
    rle["counts"] = rle["counts"][:-2]


def open_counts(data: Data) -> None:
    rle = data["annotations"][0]["segmentation"]
    rle["counts"] = rle["counts"][:-1] + "P"


def lengthen_counts(data: Data) -> None:
    data["annotations"][0]["segmentation"]["counts"] += "5"


def empty_mask(data: Data) -> None:
    rle = coco.encode(np.zeros((30, 40), np.uint8, order="F"))
    rle["counts"] = rle["counts"].decode()
    data["annotations"][0] |= {"segmentation": rle, "area": 0, "bbox": [0, 0, 0, 0]}


def negative_run(data: Data) -> None:
    rle = data["annotations"][0]["segmentation"]
    rle["counts"] = [1300, -200, 100]


SEGMENTATION = ("annotations", 0, "segmentation")
MUTATIONS: dict[str, tuple[Callable[[Data], None], str]] = {
    "annotation id 0": (at("annotations", 0, id=0), "id 0 is no whole number from 1"),
    "annotation id text": (at("annotations", 0, id="1"), "id '1' is no whole number"),
    "annotation ids twice": (repeat_object, "id 1 was there before"),
    "image id text": (at("images", 0, id="a"), "id 'a' is no whole number"),
    "image id twice": (repeat_image_id, "was there before"),
    "size the other way round": (swap_size, "the other way round"),
    "size of another image": (at(*SEGMENTATION, size=[31, 40]), "is not [height, width] of"),
    "size of three": (at(*SEGMENTATION, size=[30, 40, 1]), "size [30, 40, 1] is not"),
    "counts cut": (cut_counts, "cut short"),
    "counts that do not end": (open_counts, "cut short or no run lengths"),
    "counts too long": (lengthen_counts, "cut or damaged"),
    "counts not run lengths": (at(*SEGMENTATION, counts="zz"), "no run lengths"),
    "counts negative": (negative_run, "negative length"),
    "crowd": (at("annotations", 0, iscrowd=1), "iscrowd 1 is not 0"),
    "no iscrowd": (without("annotations", 0, "iscrowd"), "has no iscrowd"),
    "no area": (without("annotations", 0, "area"), "has no area"),
    "no bbox": (without("annotations", 0, "bbox"), "has no bbox"),
    "no segmentation": (without("annotations", 0, "segmentation"), "has no segmentation"),
    "polygons": (at("annotations", 0, segmentation=[[0, 0, 4, 0, 4, 4]]), "is not run lengths"),
    "empty mask": (empty_mask, "the mask is empty"),
    "area": (at("annotations", 0, area=271), "area 271 is not that of the mask, 270"),
    "loose box": (at("annotations", 0, bbox=[2, 2, 18, 18]), "is not the tight box"),
    "negative box": (at("annotations", 0, bbox=[-1, 2, 3, 4]), "none of them negative"),
    "box of three": (at("annotations", 0, bbox=[1, 2, 3]), "is not four numbers"),
    "unknown category": (at("annotations", 0, category_id=9), "there is no such category"),
    "category twice": (at("categories", 1, name="dog"), "name 'dog' was there before"),
    "categories with a gap": (at("categories", 2, id=7), "without gaps"),
    "no supercategory": (without("categories", 0, "supercategory"), "has no supercategory"),
    "orphan": (at("annotations", 0, image_id=5), "image_id 5: there is no such image"),
    "no width": (without("images", 0, "width"), "has no width"),
    "height of 0": (at("images", 0, height=0), "height 0 is no whole number"),
    "absolute name": (at("images", 0, file_name="/a/b.jpg"), "no relative path"),
    "name outside": (at("images", 0, file_name="../b.jpg"), "no relative path"),
    "backslash": (at("images", 0, file_name="a\\b.jpg"), "no relative path"),
    "name twice": (repeat_image_name, "was there before"),
    "ignore": (at("annotations", 0, ignore=0), "has a key ignore"),
    "score text": (at("annotations", 0, score="high"), "score 'high' is no number"),
    "percent": (at("annotations", 0, probability=50), "probability 50 is no number from 0 to 1"),
    "no info": (without("info"), "has no info"),
    "no licenses": (without("licenses"), "has no licenses"),
    "no images": (without("images"), "has no images"),
    "images no list": (at(images={}), "images: is no list"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_fault_is_found(
    name: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((good / "compressed" / "instances.json").read_text())
    change, message = MUTATIONS[name]
    change(data)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    assert any(message in line for line in findings(path))
    capsys.readouterr()
    assert export.main(["validate", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(findings(path)) + 1 and "finding" in lines[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a JSON object nor a list"),
        ('{"images": [{"id": 1}', "not complete JSON: the end instead of"),
        ('{"images": [{"id": 1}]} x', "something follows the end"),
        ('{"images": [{"id": NaN}]}', "NaN is no number of JSON"),
        ('{"images": [1]}', "images[0]: is no record"),
        ("7", "neither"),
    ],
)
def test_what_is_no_file_of_this_kind_is_a_finding(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert any(message in line for line in findings(path))


def test_a_file_that_is_not_there_is_a_bad_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["validate", "nothing/here.json"]) == 2
    assert "FILE nothing/here.json: not usable" in capsys.readouterr().err
    assert export.main(["validate"]) == 2
    assert "name the file to check" in capsys.readouterr().err


def test_results_are_a_list_without_boxes(good: Path, tmp_path: Path) -> None:
    path = good / "results" / "results.json"
    assert findings(path) == []
    for change, message in (
        ({"bbox": [0, 0, 1, 1]}, "has a bbox"),
        ({"score": None}, "score None is no number"),
        ({"image_id": "x"}, "image_id 'x' is no whole number"),
        ({"segmentation": {"size": [1, 1], "counts": [0, 1]}}, "counts is a list"),
        ({"segmentation": {"size": [9, 9], "counts": "11"}}, "cut or damaged"),
    ):
        data = json.loads(path.read_text())
        data[1].update(change)
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps(data))
        found = findings(bad)
        assert len(found) == 1 and found[0].startswith("results[1]: ") and message in found[0]


def test_objects_may_stand_before_what_they_refer_to(good: Path, tmp_path: Path) -> None:
    data = json.loads((good / "compressed" / "instances.json").read_text())
    path = tmp_path / "turned.json"
    path.write_text(json.dumps(dict(reversed(data.items()))))
    assert findings(path) == []
    data["annotations"][0]["image_id"] = 5
    path.write_text(json.dumps(dict(reversed(data.items()))))
    assert findings(path) == ["annotations[0] id 1: image_id 5: there is no such image"]


@st.composite
def files(draw: st.DrawFn) -> Data:
    """A good file, made without this project's code."""
    labels = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    categories = [
        {"id": number, "name": name, "supercategory": "thing"}
        for number, name in enumerate(labels, 1)
    ]
    images: list[Data] = []
    annotations: list[Data] = []
    for number in range(1, draw(st.integers(1, 5))):
        height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        name = f"d{number % 2}/im {number}.jpg"
        images.append({"id": number * 7, "file_name": name, "height": height, "width": width})
        for _ in range(draw(st.integers(0, 3))):
            seed = draw(st.integers(0, 2**32 - 1))
            pixels = np.random.default_rng(seed).random((height, width)) < 0.5
            pixels[seed % height, seed % width] = True
            rle = coco.encode(np.asfortranarray(pixels, dtype=np.uint8))
            flat = pixels.ravel(order="F").astype(int)
            changes = np.flatnonzero(np.diff(flat, prepend=0, append=2))
            runs = np.diff(changes, prepend=0).tolist()
            counts = draw(st.sampled_from([rle["counts"].decode(), runs]))
            annotations.append(
                {
                    **dict(id=len(annotations) + 1, image_id=number * 7, iscrowd=0, score=0.5),
                    "category_id": draw(st.integers(1, len(labels))),
                    "segmentation": {"size": [height, width], "counts": counts},
                    "area": int(pixels.sum()),
                    "bbox": coco.toBbox(rle).tolist(),
                }
            )
    lists = {"categories": categories, "images": images, "annotations": annotations}
    return {"info": {}, "licenses": []} | lists


@settings(max_examples=150)
@given(data=files())
def test_good_files_have_no_findings(data: Data, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.json"
    path.write_text(json.dumps(data))
    assert findings(path) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    value=st.lists(JSON) | st.dictionaries(st.text(), JSON),
    block=st.integers(1, 9),
    indent=st.none() | st.integers(0, 2),
    plain=st.booleans(),
)
def test_a_stream_gives_what_loading_all_of_it_would(
    value: Any, block: int, indent: int | None, plain: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    if "\\ud" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return  # halves of characters cannot be written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "BLOCK", block)
        patch.setattr(storage, "open_read", lambda _: io.BytesIO(text.encode()))
        found = list(json_stream.elements("anywhere"))
    expected = []
    for key, section in value.items() if isinstance(value, dict) else [("", value)]:
        if isinstance(section, list) and section:
            expected += [(key, index, one) for index, one in enumerate(section)]
        else:
            expected.append((key, None, section))
    assert found == expected
