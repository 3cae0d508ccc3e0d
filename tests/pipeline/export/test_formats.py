"""What is particular to each format beside COCO."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipeline import storage
from pipeline.config.weights import LICENCE
from pipeline.export.semantic import palette
from pipeline.outputs.semantic import SemanticConfig, semantic_map
from tests.pipeline.export.made import HARD, SIZE, Made, box, make_run
from tests.pipeline.export.test_export import many, run, said

NAMES = {"sub/dir.v2/im", "sub/dir.v2/empty", "two words"}


def below(folder: Path, suffix: str) -> set[str]:
    found = folder.rglob(f"*{suffix}")
    return {path.relative_to(folder).as_posix().removesuffix(suffix) for path in found}


def test_label_maps_are_grey_and_say_what_semantic_map_says(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD)
    flags = ("--colour", "--semantic.level", "0.3")
    assert run(tmp_path / "out", tmp_path / "to", *flags, format="semantic") == 0
    assert below(tmp_path / "to" / "masks", ".png") == NAMES
    rows = pq.read_table(tmp_path / "out" / "annotations").to_pylist()
    labels = {"a zebra": 1, "cat": 2, "dog": 3}
    first = [row for row in rows if row["sample_index"] == 0]
    wanted = semantic_map(first, labels, SIZE, SemanticConfig(level=0.3))
    with Image.open(tmp_path / "to" / "masks" / "sub" / "dir.v2" / "im.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.array(image), wanted)
    assert set(np.unique(wanted)) >= {2, 3}
    with Image.open(tmp_path / "to" / "colour" / "sub" / "dir.v2" / "im.png") as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), palette()[wanted])
    with Image.open(tmp_path / "to" / "masks" / "sub" / "dir.v2" / "empty.png") as image:
        assert not np.array(image).any()
    about = json.loads((tmp_path / "to" / "labels.json").read_text())
    assert about["classes"] == ["background", "a zebra", "cat", "dog"]
    assert about["palette"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_label_maps_at_a_size_keep_proportions(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD)
    flags = ("--size", "20", "--split", "a=0.5,b=0.5")
    assert run(tmp_path / "out", tmp_path / "to", *flags, format="semantic") == 0
    sizes = {}
    for path in (tmp_path / "to" / "masks").rglob("*.png"):
        with Image.open(path) as image:
            sizes[path.stem] = image.size
    assert sizes == {"im": (20, 15), "empty": (20, 12), "two words": (14, 20)}
    folders = {path.name for path in (tmp_path / "to" / "masks").iterdir()}
    assert folders <= {"a", "b"}


def test_the_palette_is_vocs() -> None:
    assert palette()[[1, 15, 20, 255]].tolist() == [
        [128, 0, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


@pytest.mark.parametrize(
    ("format", "flags", "message"),
    [
        ("semantic", ("--instances", "components"), "--instances: has no effect here"),
        ("semantic", ("--size", "0"), "--size 0: must be from 1 to 16384"),
        ("semantic", ("--semantic.background", "band"), "made with --mask.heat false"),
        ("webdataset", (), "--images is needed"),
        ("webdataset", ("--images", "x.tar", "--file_name", "{key}.jpg"), "has no effect here"),
        ("hf", ("--images", "{tars}/nothing.tar"), "no shard at"),
        ("hf", ("--images", "{tars}/part-0.tar"), "1 of 2 shards of the run are not among them"),
        ("yolo", ("--outline_area", "-1"), "--outline_area -1.0: must not be negative"),
    ],
)
def test_what_cannot_be_is_one_line(
    format: str,
    flags: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(str(tmp_path / "out"), many(0), many(4), images=tmp_path / "tars")
    if "band" in flags:
        path = tmp_path / "out" / "run.json"
        about = json.loads(path.read_text())
        about["results"]["mask"]["heat"] = False
        path.write_text(json.dumps(about))
    given = [flag.replace("{tars}", str(tmp_path / "tars")) for flag in flags]
    assert run(tmp_path / "out", tmp_path / "to", *given, format=format) == 2
    assert message in said(capsys)


@pytest.mark.parametrize("format", ["yolo", "semantic"])
def test_two_images_may_not_have_one_stem(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = ("dog", 0.5, box(SIZE, (0, 0, 4, 4)))
    images = [Made("a.jpg", SIZE, [mask]), Made("a.png", SIZE, [mask], key="b")]
    make_run(str(tmp_path / "out"), images)
    assert run(tmp_path / "out", tmp_path / "to", format=format) == 2
    assert "would have the same name (a.jpg, a.png)" in said(capsys)


def test_polygons_say_what_they_lose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(str(tmp_path / "out"), HARD, images=tmp_path / "tars")
    tars = ("--images", str(tmp_path / "tars"))
    flags = (*tars, "--outline_area", "20")
    assert run(tmp_path / "out", tmp_path / "to", *flags, format="yolo") == 0
    said = capsys.readouterr().out
    assert "holes filled: 1" in said
    assert "parts left out, smaller than --outline_area: 2" in said
    assert "objects left out, with all their parts: 1" in said
    assert below(tmp_path / "to" / "labels", ".txt") == NAMES
    assert below(tmp_path / "to" / "images", ".jpg") == NAMES
    lines = (tmp_path / "to" / "labels" / "sub" / "dir.v2" / "im.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1", "2"]
    points = np.array(lines[2].split()[1:], float).reshape(-1, 2) * (40, 30)
    np.testing.assert_allclose([points.min(0), points.max(0)], [[0, 0], [40, 30]], atol=1e-4)
    about = yaml.safe_load((tmp_path / "to" / "dataset.yaml").read_text())
    assert about == {
        **dict(train="images", val="images"),
        "names": {0: "a zebra", 1: "cat", 2: "dog"},
    }


def test_parquet_has_the_same_schema_in_every_file(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), many(0), [Made("z.jpg", SIZE)])
    flags = ("--split", "train=0.6,val=0.4")
    assert run(tmp_path / "out", tmp_path / "to", *flags, format="hf") == 0
    paths = sorted((tmp_path / "to" / "data").iterdir())
    assert [path.name.partition("-")[0] for path in paths] == ["train", "train", "val", "val"]
    schemas = [pq.read_schema(path) for path in paths]
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert sum(pq.read_metadata(path).num_rows for path in paths) == 5
    card = (tmp_path / "to" / "README.md").read_text().split("---")[1]
    assert yaml.safe_load(card)["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"},
        {"split": "val", "path": "data/val-*.parquet"},
    ]


@pytest.mark.parametrize(("name", "bound"), [("imagebind_huge", True), ("ViT-B-16", False)])
def test_the_card_has_the_licence_of_the_weights(tmp_path: Path, name: str, bound: bool) -> None:
    make_run(str(tmp_path / "out"), many(0), model={"name": name, "pretrained": "x.pth"})
    assert run(tmp_path / "out", tmp_path / "to", format="hf") == 0
    assert (LICENCE in (tmp_path / "to" / "README.md").read_text()) is bound


def test_samples_keep_their_images_byte_for_byte(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD, images=tmp_path / "tars")
    tars = ("--images", str(tmp_path / "tars"))
    assert run(tmp_path / "out", tmp_path / "to", *tars, format="webdataset") == 0
    (name,) = json.loads((tmp_path / "to" / "shards.json").read_text())["shards"]["all"]
    with tarfile.open(tmp_path / "to" / name) as archive:
        members = {one.name: archive.extractfile(one).read() for one in archive}
    assert list(members) == [f"{key}.{end}" for key in (
        "sub/dir.v2/im", "sub/dir.v2/empty", "two words") for end in ("jpg", "json")]  # fmt: skip
    assert members["two words.jpg"] == HARD[3].jpeg()
    record: Any = json.loads(members["sub/dir.v2/im.json"])
    assert [one["category"] for one in record["objects"]] == ["dog", "cat", "dog"]
    assert json.loads(members["sub/dir.v2/empty.json"])["objects"] == []


def test_other_images_than_those_that_were_annotated_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), many(0), images=tmp_path / "tars")
    make_run(str(tmp_path / "other"), many(4), images=tmp_path / "tars")
    tars = ("--images", str(tmp_path / "tars"))
    assert run(tmp_path / "out", tmp_path / "to", *tars, format="hf") == 2
    assert "is not the shard that was annotated: sample 0 is im4" in said(capsys)
    (tmp_path / "tars" / "part-0.tar").write_bytes(b"cut")
    assert run(tmp_path / "out", tmp_path / "cut", *tars, format="webdataset") == 2
    assert "the same command goes on" in said(capsys)


@pytest.mark.parametrize("format", ["semantic", "hf", "webdataset", "yolo"])
def test_an_object_store_is_as_good_as_a_disk(
    format: str, tmp_path: Path, bucket: Any, tree: Any
) -> None:
    make_run(str(tmp_path / "out"), HARD, images=tmp_path / "tars")
    flags = () if format == "semantic" else ("--images", str(tmp_path / "tars"))
    assert run(tmp_path / "out", tmp_path / "to", *flags, format=format) == 0
    assert run(tmp_path / "out", "s3://data/to", *flags, format=format) == 0
    files = tree(str(tmp_path / "to"))
    objects = bucket.list_objects_v2(Bucket="data")["Contents"]
    stored = {one["Key"].removeprefix("to/") for one in objects if one["Size"]}
    assert stored == {name for name, data in files.items() if data}
    for name, data in files.items():
        assert storage.read_bytes(f"s3://data/to/{name}") == data


@pytest.mark.parametrize("format", ["semantic", "hf", "webdataset", "yolo"])
def test_an_interrupted_export_has_no_last_file_and_goes_on(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    make_run(str(tmp_path / "out"), many(0), many(4), images=tmp_path / "tars")
    flags = () if format == "semantic" else ("--images", str(tmp_path / "tars"))
    assert run(tmp_path / "out", tmp_path / "whole", *flags, format=format) == 0
    write_bytes, create = storage.write_bytes, storage.create

    def refuse(location: str) -> None:
        if "part-1" in location or "im5" in location:
            raise OSError("no space left")

    def write(location: str, data: bytes) -> None:
        refuse(location)
        write_bytes(location, data)

    def begin(location: str) -> Any:
        refuse(location)
        return create(location)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", write)
        patch.setattr(storage, "create", begin)
        assert run(tmp_path / "out", tmp_path / "to", *flags, format=format) == 2
    last = {"semantic": "labels.json", "hf": "README.md", "webdataset": "shards.json"}
    name = last.get(format, "dataset.yaml")
    assert (tmp_path / "whole" / name).exists() and not (tmp_path / "to" / name).exists()
    assert run(tmp_path / "out", tmp_path / "to", *flags, format=format) == 0
    assert tree(str(tmp_path / "to")) == tree(str(tmp_path / "whole"))
