"""What real clients read of an export: `python -m tests.pipeline.export.clients` writes the table.

Every client gives back the objects that it found, as (file name, category, pixels, score); no
line of it converts anything, which would be a line that users had to write.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jobs import export
from tests.pipeline.export.made import HARD, Made, make_run

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"
BLOCK = re.compile(r"(<!-- clients: begin.*?-->\n).*?(<!-- clients: end -->)", re.DOTALL)


class Found(NamedTuple):
    """An object as a client has it; `score` is None where it does not keep it."""

    file_name: str
    category: str
    pixels: np.ndarray
    score: float | None


class Client(NamedTuple):
    """A client of a format.

    Attributes:
        name: of the client, and how it reads.
        format: what was exported.
        flags: of the export.
        read: from the export's folder and the images' to objects.
        exact: masks are to be equal bit for bit.
        flat: it does not look into sub-folders.
        extra: a package of the extra `clients`, which few have installed.
    """

    name: str
    format: str
    flags: tuple[str, ...]
    read: Callable[[Path, Path], Iterator[Found]]
    exact: bool = True
    flat: bool = False
    extra: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it can be asked."""
        return not self.extra or importlib.util.find_spec(self.extra) is not None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Clients print, and warn of what they lack."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def pycocotools(folder: Path, images: Path) -> Iterator[Found]:
    data: Any = COCO(folder / "instances.json")  # its stubs know of no score
    for annotation in data.anns.values():
        name = data.imgs[annotation["image_id"]]["file_name"]
        category = data.cats[annotation["category_id"]]["name"]
        yield Found(name, category, data.annToMask(annotation), annotation["score"])


def fr_py_objects(folder: Path, images: Path) -> Iterator[Found]:
    """What torchvision's references and DETR do with the segmentations of an image."""
    data = json.loads((folder / "instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    labels = {category["id"]: category["name"] for category in data["categories"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for one in data["annotations"]:
        (rle,) = coco.frPyObjects([one["segmentation"]], *sizes[one["image_id"]])
        label = labels[one["category_id"]]
        yield Found(names[one["image_id"]], label, coco.decode(rle), one["score"])


def faster_coco_eval(folder: Path, images: Path) -> Iterator[Found]:
    from faster_coco_eval import COCO as Faster

    data = Faster(str(folder / "instances.json"))
    for annotation in data.anns.values():
        name = data.imgs[annotation["image_id"]]["file_name"]
        category = data.cats[annotation["category_id"]]["name"]
        yield Found(name, category, data.annToMask(annotation), annotation["score"])


def torchvision(folder: Path, images: Path) -> Iterator[Found]:
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    data = CocoDetection(images, folder / "instances.json")
    wrapped = wrap_dataset_for_transforms_v2(data, target_keys=("masks", "labels", "image_id"))
    for _, target in wrapped:
        image = data.coco.imgs[target["image_id"]]
        labels = target["labels"].tolist() if "labels" in target else []
        for label, pixels in zip(labels, target.get("masks", ()), strict=True):
            category = data.coco.cats[label]["name"]
            yield Found(image["file_name"], category, pixels.numpy(), None)


def supervision(folder: Path, images: Path) -> Iterator[Found]:
    import supervision as sv

    data = sv.DetectionDataset.from_coco(
        str(images), str(folder / "instances.json"), force_masks=True
    )
    yield from _of_supervision(data, images)


def supervision_yolo(folder: Path, images: Path) -> Iterator[Found]:
    import supervision as sv

    data = sv.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "dataset.yaml"), True
    )
    yield from _of_supervision(data, folder / "images")


def _of_supervision(data: Any, images: Path) -> Iterator[Found]:
    for path, _, detections in data:
        name = Path(path).resolve().relative_to(images.resolve()).as_posix()
        masks = detections.mask if detections.mask is not None else []
        for label, pixels in zip(detections.class_id, masks, strict=True):
            yield Found(name, data.classes[label], pixels, None)


def hugging_face(folder: Path, images: Path) -> Iterator[Found]:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        data = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
        labels = data.features["objects"]["category"].feature
        for row in data:
            if "image" in row:
                assert row["image"].size == (row["width"], row["height"])
            yield from _of_lists(row["file_name"], row["objects"], labels.int2str)


def _of_lists(name: str, objects: Any, label: Callable[[int], str]) -> Iterator[Found]:
    columns = (objects[key] for key in ("category", "segmentation", "score"))
    for number, rle, score in zip(*columns, strict=True):
        yield Found(name, label(number), coco.decode(rle), score)


def _labels(folder: Path) -> Callable[[int], str]:
    """The names of the classes, which plain Parquet readers find in the schema."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(next((folder / "data").glob("*.parquet")))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    names: list[str] = features["objects"]["category"]["feature"]["names"]
    return names.__getitem__


def duckdb(folder: Path, images: Path) -> Iterator[Found]:
    import duckdb

    with duckdb.connect() as connection:
        query = f"SELECT file_name, objects FROM '{folder}/data/*.parquet'"
        for name, objects in connection.execute(query).fetchall():
            yield from _of_lists(name, objects, _labels(folder))


def polars(folder: Path, images: Path) -> Iterator[Found]:
    import polars

    for row in polars.read_parquet(folder / "data" / "*.parquet").iter_rows(named=True):
        yield from _of_lists(row["file_name"], row["objects"], _labels(folder))


def webdataset(folder: Path, images: Path) -> Iterator[Found]:
    import webdataset

    shards = json.loads((folder / "shards.json").read_text())["shards"]["all"]
    urls = [str(folder / shard) for shard in shards]
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("pil"):
        record = sample["json"]
        assert sample["jpg"].size == (record["width"], record["height"])
        for one in record["objects"]:
            pixels = coco.decode(one["segmentation"])
            yield Found(record["file_name"], one["category"], pixels, one["score"])


def fiftyone(folder: Path, images: Path) -> Iterator[Found]:
    os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"  # there is no database to start for an importer
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    importer = COCODetectionDatasetImporter(
        data_path=str(images),
        labels_path=str(folder / "instances.json"),
        label_types=["segmentations"],
    )
    with importer:
        for path, metadata, objects in importer:
            name = Path(path).relative_to(images).as_posix()
            size = (metadata.width, metadata.height)
            for one in objects.detections if objects else ():
                # It holds the crop to the box. Its own to_segmentation cuts 28.999… down to 28.
                left, top = (round(x * n) for x, n in zip(one.bounding_box, size, strict=False))
                pixels = np.zeros(size[::-1], dtype=bool)
                height, width = one.mask.shape
                pixels[top : top + height, left : left + width] = one.mask
                yield Found(name, one.label, pixels, one.confidence)


def ultralytics(folder: Path, images: Path) -> Iterator[Found]:
    from ultralytics.data.converter import convert_coco
    from ultralytics.data.utils import polygon2mask

    categories = json.loads((folder / "instances.json").read_text())["categories"]
    with tempfile.TemporaryDirectory() as converted:
        to = Path(converted, "yolo")
        convert_coco(str(folder), str(to), use_segments=True, cls91to80=False)
        for path in sorted((to / "labels" / "instances").rglob("*.txt")):
            name = path.relative_to(to / "labels" / "instances").with_suffix(".jpg").as_posix()
            with Image.open(images / name) as image:
                size = image.size
            for line in path.read_text().splitlines():
                label, *outline = line.split()
                corners = np.array(outline, dtype=float).reshape(-1, 2) * size
                category = categories[int(label)]["name"]
                yield Found(name, category, polygon2mask(size[::-1], [corners]), None)


IMAGES = ("--images", "{images}.tars")
CLIENTS = [
    Client("pycocotools", "coco", (), pycocotools),
    Client("pycocotools", "coco --rle uncompressed", ("--rle", "uncompressed"), pycocotools),
    Client(
        "torchvision references, DETR: frPyObjects",
        "coco --rle uncompressed",
        ("--rle", "uncompressed"),
        fr_py_objects,
    ),
    Client("faster-coco-eval", "coco", (), faster_coco_eval),
    Client("torchvision CocoDetection, v2 wrapper", "coco", (), torchvision),
    Client("supervision", "coco", (), supervision),
    Client("FiftyOne", "coco", (), fiftyone, extra="fiftyone"),
    Client("ultralytics convert_coco", "coco", (), ultralytics, exact=False, extra="ultralytics"),
    Client("Hugging Face datasets", "hf", (), hugging_face),
    Client("Hugging Face datasets", "hf --images", IMAGES, hugging_face),
    Client("DuckDB", "hf", (), duckdb),
    Client("Polars", "hf", (), polars),
    Client("WebDataset", "webdataset --images", IMAGES, webdataset),
    Client("supervision", "yolo --images", IMAGES, supervision_yolo, exact=False, flat=True),
]


class Row(NamedTuple):
    """What a client makes of an export: objects, masks equal bit for bit, and those with scores."""

    objects: int
    equal: int
    scored: int


def expected(made: list[Made]) -> Counter[Any]:
    return Counter(
        (one.file_name, category, pixels.shape, pixels.astype(bool).tobytes(), score)
        for one in made
        for category, score, pixels in one.masks
    )


def ask(client: Client, made: list[Made], place: Path) -> Row:
    """Export a run and have a client read it."""
    if client.flat:
        made = [replace(one, file_name=Path(one.file_name).name, key="") for one in made]
    images, tars = place / "images", place / "images.tars"
    make_run(str(place / "out"), made, images=tars)
    for one in made:
        (images / one.file_name).parent.mkdir(parents=True, exist_ok=True)
        (images / one.file_name).write_bytes(one.jpeg())
    return compare(client, place / "out", images, expected(made), place / "export")


def compare(client: Client, run: Path, images: Path, wanted: Counter[Any], folder: Path) -> Row:
    """The same for a run and its images that are there."""
    places = ("--predictions", str(run), "--output", str(folder))
    flags = [flag.format(images=images) for flag in client.flags]
    with quiet():
        assert export.main([client.format.split()[0], *places, *flags]) == 0
        found = list(client.read(folder, images))
    masks = Counter(
        (one.file_name, one.category, one.pixels.shape, one.pixels.astype(bool).tobytes())
        for one in found
    )
    scored = Counter(
        (one.file_name, one.category, one.pixels.shape, one.pixels.astype(bool).tobytes(),
         one.score)
        for one in found
    )  # fmt: skip
    plain = Counter[Any]()
    for entry, count in wanted.items():
        plain[entry[:-1]] += count
    return Row(len(found), (masks & plain).total(), (scored & wanted).total())


def evaluate(coco_file: Path, results: Path, kind: str) -> float:
    """AP of results with the same masks as truth: 1."""
    with quiet():
        if kind == "pycocotools":
            truth = COCO(coco_file)
            score = COCOeval(truth, truth.loadRes(str(results)), "segm")
        else:
            from faster_coco_eval import COCO as Faster
            from faster_coco_eval import COCOeval_faster

            truth = Faster(str(coco_file))
            score = COCOeval_faster(truth, truth.loadRes(str(results)), "segm")
        score.evaluate()
        score.accumulate()
        score.summarize()
    return float(score.stats[0])


HEADER = (
    "| client | export.py | objects | masks equal bit for bit | score kept | lines to write |\n"
    "|---|---|---|---|---|---|\n"
)


def line(client: Client) -> str:
    """Of the table: what a client makes of the hard images."""
    total = expected(HARD).total()
    with tempfile.TemporaryDirectory() as place:
        row = ask(client, HARD, Path(place))
    equal = "all" if row.equal == total else f"{row.equal} of {total}: outlines"
    kept = "yes" if row.scored else "no"
    return f"| {client.name} | `{client.format}` | {row.objects} | {equal} | {kept} | 0 |\n"


if __name__ == "__main__":
    absent = [client.extra for client in CLIENTS if not client.is_here]
    if absent:
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -e '.[clients]'")
    table = HEADER + "".join(line(client) for client in CLIENTS)
    text, made = BLOCK.subn(rf"\g<1>{table}\g<2>", PAGE.read_text())
    assert made == 1
    PAGE.write_text(text)
