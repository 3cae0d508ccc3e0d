"""COCO's instances and results, one file for all shards, written as a stream.

Every shard leaves its lines in `State.parts`; in the end they are put one behind the other, and
the objects are numbered, which only then can be done. `CocoConfig` says how records are made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, BinaryIO, ClassVar, Literal

from pipeline import storage
from pipeline.export.config import ExportConfig
from pipeline.export.instances import Instance, Selected
from pipeline.export.pictures import Picture
from pipeline.export.run import Format
from pipeline.outputs.masks import RLE
from pipeline.outputs.records import Commit
from pipeline.outputs.run_lengths import run_ends

to_json = json.JSONEncoder(separators=(",", ":")).encode
"""ASCII, so that it does not matter in which encoding a client opens the file."""


@dataclass(frozen=True)
class CocoConfig(ExportConfig):
    """COCO instances, for pycocotools, torchvision, Detectron2, FiftyOne, CVAT and many others."""

    rle: Literal["compressed", "uncompressed"] = "compressed"
    """compressed: run lengths as a string; uncompressed: as a list of numbers, which the loaders of
    torchvision's references and of DETR want."""

    FORMAT: ClassVar[str] = "coco"


@dataclass(frozen=True)
class CocoResultsConfig(ExportConfig):
    """COCO results, a bare list, for COCOeval's loadRes."""

    FORMAT: ClassVar[str] = "coco-results"


class Coco(Format[CocoConfig]):
    """`instances.json`, or one file for each part of the data."""

    def last_files(self) -> Sequence[str]:
        """One file for each part of the data."""
        return [named("instances", part) for part in self.parts]

    def write_shard(self, selected: Selected) -> Counter[str]:
        """Keep a line for every image and every object, the latter without an id."""
        images: dict[str, list[str]] = {part: [] for part in self.parts}
        objects: dict[str, list[str]] = {part: [] for part in self.parts}
        for picture in selected.pictures:
            images[picture.part].append(to_json(_image(picture)))
            for instance in selected.instances.get(picture.sample, ()):
                objects[picture.part].append(to_json(self._annotation(picture, instance)))
        for kind, lines in (("images", images), ("objects", objects)):
            keep(self, selected.commit, kind, lines)
        return Counter()

    def finish(self, commits: Sequence[Commit]) -> None:
        """Put the lines of all shards together."""
        for part in self.parts:
            with storage.create(self.state.path(named("instances", part))) as file:
                head = to_json({"info": _info(), "licenses": [], "categories": self._categories()})
                file.write(head[:-1].encode() + b',"images":[\n')
                put(file, kept(self, commits, "images", part))
                file.write(b'\n],"annotations":[\n')
                put(file, numbered(kept(self, commits, "objects", part)))
                file.write(b"\n]}\n")

    def _categories(self) -> list[dict[str, Any]]:
        return [
            {"id": number, "name": name, "supercategory": "object"}
            for number, name in enumerate(self.categories, 1)
        ]

    def _annotation(self, picture: Picture, instance: Instance) -> dict[str, Any]:
        segmentation: Any = instance.segmentation
        if self.config.rle == "uncompressed":
            segmentation = uncompressed(instance.segmentation)
        return {
            "image_id": picture.id,
            "category_id": instance.category,
            "segmentation": segmentation,
            "area": instance.area,
            "bbox": instance.bbox,
            "iscrowd": 0,  # although it is run lengths: clients pass over what is a crowd
            "score": instance.score,
            **instance.likely,
        }


class CocoResults(Format[CocoResultsConfig]):
    """`results.json`, or one file for each part of the data."""

    def last_files(self) -> Sequence[str]:
        """One file for each part of the data."""
        return [named("results", part) for part in self.parts]

    def write_shard(self, selected: Selected) -> Counter[str]:
        """Keep a line for every object."""
        objects: dict[str, list[str]] = {part: [] for part in self.parts}
        for picture in selected.pictures:
            for instance in selected.instances.get(picture.sample, ()):
                objects[picture.part].append(to_json(_result(picture, instance)))
        keep(self, selected.commit, "objects", objects)
        return Counter()

    def finish(self, commits: Sequence[Commit]) -> None:
        """Put the lines of all shards together."""
        for part in self.parts:
            with storage.create(self.state.path(named("results", part))) as file:
                file.write(b"[\n")
                put(file, kept(self, commits, "objects", part))
                file.write(b"\n]\n")


def named(name: str, part: str) -> str:
    """The file of a part of the data: `instances.json`, `instances_train.json`."""
    return f"{name}_{part}.json" if part else f"{name}.json"


def keep(written: Format[Any], commit: Commit, kind: str, lines: dict[str, list[str]]) -> None:
    """Write the lines of a shard, by the part of the data that they belong to."""
    for part, of_part in lines.items():
        data = "\n".join(of_part).encode()
        storage.write_bytes(written.state.path(_kept_in(written, commit, kind, part)), data)


def kept(
    written: Format[Any], commits: Sequence[Commit], kind: str, part: str
) -> Iterator[list[bytes]]:
    """The lines again, shard by shard."""
    for commit in commits:
        data = storage.read_bytes(written.state.path(_kept_in(written, commit, kind, part)))
        yield data.split(b"\n") if data else []


def numbered(shards: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """Objects with an id from 1: 0 means no match to COCOeval."""
    number = 1
    for lines in shards:
        yield [b'{"id":%d,%s' % entry for entry in enumerate((x[1:] for x in lines), number)]
        number += len(lines)


def put(file: BinaryIO, shards: Iterator[list[bytes]]) -> None:
    """Write lines with commas between them."""
    between = b""
    for lines in shards:
        if lines:
            file.write(between + b",\n".join(lines))
            between = b",\n"


def uncompressed(segmentation: RLE) -> dict[str, Any]:
    """Run lengths as numbers, those of 0 first."""
    ends = run_ends(segmentation["counts"]).tolist()
    runs = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return {"size": segmentation["size"], "counts": runs}


def _kept_in(written: Format[Any], commit: Commit, kind: str, part: str) -> str:
    return f"{written.state.parts}/{commit.shard}.{part or 'all'}.{kind}"


def _image(picture: Picture) -> dict[str, Any]:
    return {
        "id": picture.id,
        "file_name": picture.file_name,
        "width": picture.width,
        "height": picture.height,
    }


def _result(picture: Picture, instance: Instance) -> dict[str, Any]:
    """Without a box: with one, loadRes takes the box's area for the mask's."""
    return {
        "image_id": picture.id,
        "category_id": instance.category,
        "segmentation": instance.segmentation,
        "score": instance.score,
        **instance.likely,
    }


def _info() -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    return {
        "description": "Pseudo-masks, made by a model",
        "url": "",
        "version": "1",
        "year": now.year,
        "contributor": "legrad-annotate",
        "date_created": now.strftime("%Y/%m/%d"),
    }
