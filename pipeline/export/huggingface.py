"""A Hugging Face data set: a row per image, with its objects as lists, in Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.export.images import ImageFormat, ImagesConfig
from pipeline.export.instances import Instance, Selected
from pipeline.export.pictures import Picture
from pipeline.outputs.card import card, with_licence
from pipeline.outputs.records import Commit
from pipeline.outputs.schema import PROBABILITY, SEGMENTATION, calibrated
from pipeline.storage.parquet import COMPRESSION

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OBJECTS = {
    "category": pa.int64(),
    "score": pa.float32(),
    "probability": pa.float32(),
    "area": pa.int64(),
    "bbox": pa.list_(pa.float32(), 4),
    "segmentation": SEGMENTATION,
}
"""What is said of an object; the probability only in runs with a calibration."""
ROWS, ROWS_WITH_PIXELS = 1000, 100
"""In a row group: the hub's viewer reads one at a time."""
FILES_TEXT = """\
Pseudo-masks of a model, made from texts: what people have drawn looks otherwise. One row is an
image; its `objects` are lists of the same length. `category` counts from 0, `bbox` is x, y, width,
height in pixels, and `score` says whether the thing is there at all.

```python
from datasets import load_dataset
from pycocotools import mask

data = load_dataset("PATH/OF/THIS/FOLDER")
for row in data["{part}"]:
    masks = [mask.decode(rle) for rle in row["objects"]["segmentation"]]  # uint8 [height, width]
```
"""


@dataclass(frozen=True)
class HfConfig(ImagesConfig):
    """A Hugging Face data set, one row per image with lists of objects; pixels with --images."""

    FORMAT: ClassVar[str] = "hf"


class Hf(ImageFormat[HfConfig]):
    """`data/<part>-<shard>.parquet`, and `README.md` as the card."""

    def last_files(self) -> Sequence[str]:
        """Without the card, nobody finds the parts."""
        return ["README.md"]

    def write_shard(self, selected: Selected) -> Counter[str]:
        """A file for each part of the data, with rows or without."""
        schema = self._schema()
        groups = ROWS_WITH_PIXELS if self.config.images else ROWS
        rows = self._rows(selected)
        with _Files(self, selected.commit, schema) as files:
            waiting: dict[str, list[dict[str, Any]]] = {part: [] for part in self.parts}
            for part, row in rows:
                waiting[part].append(row)
                if len(waiting[part]) == groups:
                    files.write(part, waiting[part])
                    waiting[part] = []
            for part, left in waiting.items():
                files.write(part, left)
        return Counter()

    def finish(self, commits: Sequence[Commit]) -> None:
        """The card."""
        names = [part or "train" for part in self.parts]
        files = "".join(f"\n  - split: {name}\n    path: data/{name}-*.parquet" for name in names)
        text = FILES_TEXT.replace("{part}", names[0])
        text = with_licence(text, self.predictions.identity["model"])
        storage.write_bytes(
            self.state.path("README.md"), card({"default": files}, "Pseudo-masks", text)
        )

    def _rows(self, selected: Selected) -> Iterator[tuple[str, dict[str, Any]]]:
        if self.shards:
            for picture, _, data in self.read_images(selected):
                image = {"bytes": data, "path": picture.file_name}
                yield picture.part, {"image": image} | _row(picture, selected.instances)
        else:
            for picture in selected.pictures:
                yield picture.part, _row(picture, selected.instances)

    def _schema(self) -> pa.Schema:
        image = [pa.field("image", IMAGE)] if self.config.images else []
        schema = pa.schema(
            [
                *image,
                pa.field("image_id", pa.int64()),
                pa.field("file_name", pa.string()),
                pa.field("height", pa.int32()),
                pa.field("width", pa.int32()),
                pa.field("objects", self._objects()),
            ]
        )
        features = _features(self.categories, bool(image), self._likely)
        return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})

    @property
    def _likely(self) -> bool:
        return calibrated(self.predictions.identity)

    def _objects(self) -> pa.DataType:
        of_object = {k: v for k, v in OBJECTS.items() if k != PROBABILITY.name or self._likely}
        return pa.struct([(name, pa.list_(kind)) for name, kind in of_object.items()])


class _Files:
    """The Parquet files of a shard, open at the same time."""

    def __init__(self, written: Hf, commit: Commit, schema: pa.Schema) -> None:
        self._written, self._commit, self._schema = written, commit, schema
        self._stack = ExitStack()
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> _Files:
        for part in self._written.parts:
            path = f"data/{part or 'train'}-{self._commit.shard}.parquet"
            file = self._stack.enter_context(storage.create(self._written.state.path(path)))
            writer = pq.ParquetWriter(file, self._schema, compression=COMPRESSION)
            self._writers[part] = self._stack.enter_context(writer)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, part: str, rows: Sequence[Mapping[str, Any]]) -> None:
        table = pa.Table.from_pylist(list(rows), schema=self._schema)
        self._writers[part].write_table(table)


def _row(picture: Picture, instances: Mapping[int, Sequence[Instance]]) -> dict[str, Any]:
    found = instances.get(picture.sample, ())
    return {
        "image_id": picture.id,
        "file_name": picture.file_name,
        "height": picture.height,
        "width": picture.width,
        "objects": {
            "category": [instance.category - 1 for instance in found],
            "score": [instance.score for instance in found],
            "probability": [instance.probability for instance in found],
            "area": [instance.area for instance in found],
            "bbox": [instance.bbox for instance in found],
            "segmentation": [instance.segmentation for instance in found],
        },
    }


def _features(categories: Sequence[str], with_image: bool, likely: bool) -> dict[str, Any]:
    """What the columns mean, as `datasets` writes it."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def several(feature: dict[str, Any], **length: int) -> dict[str, Any]:
        return {"feature": feature, **length, "_type": "List"}

    size = several(value("int32"), length=2)
    return ({"image": {"_type": "Image"}} if with_image else {}) | {
        "image_id": value("int64"),
        "file_name": value("string"),
        "height": value("int32"),
        "width": value("int32"),
        "objects": {
            "category": several({"names": list(categories), "_type": "ClassLabel"}),
            "score": several(value("float32")),
            **({"probability": several(value("float32"))} if likely else {}),
            "area": several(value("int64")),
            "bbox": several(several(value("float32"), length=4)),
            "segmentation": several({"size": size, "counts": value("string")}),
        },
    }
