"""What is wrong with a record of a COCO file, in words.

Every rule is one that some client breaks without, most of them in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pycocotools import mask as coco

from pipeline.outputs.run_lengths import checked_ends

CLOSE = 0.01
"""Pixels that a box or an area may be off, which are whole numbers."""
REQUIRED = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name", "supercategory"),
    "annotations": (*("id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"),),
    "": ("image_id", "category_id", "segmentation", "score"),
}
"""Keys of the records of every section, with those of a bare list of results."""


class Shape(NamedTuple):
    """Pixels of an image; None where it does not say."""

    height: int | None
    width: int | None


def missing(section: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Keys that are not there."""
    for key in REQUIRED[section]:
        if key not in record:
            yield f"has no {key}"


def image(record: Mapping[str, Any]) -> Iterator[str]:
    """An image, apart from others."""
    for key in ("id", "width", "height"):
        if key in record and not _is_count(record[key]):
            yield f"{key} {record[key]!r} is no whole number from 1"
    if "file_name" in record:
        name = record["file_name"]
        if not isinstance(name, str) or not name:
            yield f"file_name {name!r} is no name"
        elif name.startswith("/") or "\\" in name or ".." in name.split("/") or name[1:2] == ":":
            yield f"file_name {name!r} is no relative path with forward slashes"


def category(record: Mapping[str, Any]) -> Iterator[str]:
    """A category, apart from others."""
    if "id" in record and not _is_count(record["id"]):
        yield f"id {record['id']!r} is no whole number from 1"
    for key in ("name", "supercategory"):
        if key in record and not (isinstance(record[key], str) and record[key]):
            yield f"{key} {record[key]!r} is no name"


def annotation(record: Mapping[str, Any], shape: Shape | None) -> Iterator[str]:
    """An object, apart from others.

    Args:
        record: the object.
        shape: of its image; None where there is none.
    """
    if "id" in record and not _is_count(record["id"]):
        yield f"id {record['id']!r} is no whole number from 1 (COCOeval takes 0 for no match)"
    if record.get("iscrowd", 0) != 0:
        yield f"iscrowd {record['iscrowd']!r} is not 0: trainers leave it out"
    if "ignore" in record:
        yield "has a key ignore, which Detectron2 refuses"
    yield from _likeliness(record)
    box = record.get("bbox")
    if "bbox" in record and not _is_box(box):
        yield f"bbox {box!r} is not four numbers x, y, width, height, none of them negative"
        box = None
    area = record.get("area")
    if "area" in record and not _is_number(area):
        yield f"area {area!r} is no number"
        area = None
    if "segmentation" in record:
        yield from _mask(record["segmentation"], shape, area, box)


def result(record: Mapping[str, Any]) -> Iterator[str]:
    """An object of a bare list of results."""
    yield from _likeliness(record)
    if "bbox" in record:
        yield "has a bbox, whose area loadRes takes for the mask's"
    for key in ("image_id", "category_id"):
        if key in record and not _is_count(record[key]):
            yield f"{key} {record[key]!r} is no whole number from 1"
    if "segmentation" in record:
        segmentation = record["segmentation"]
        if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
            yield "counts is a list, which loadRes does not take"
        else:
            yield from _mask(segmentation, None, None, None)


def _likeliness(record: Mapping[str, Any]) -> Iterator[str]:
    """Score and probability, where it has them."""
    if "score" in record and not _is_number(record["score"]):
        yield f"score {record['score']!r} is no number"
    if "probability" in record:
        likely = record["probability"]
        if not _is_number(likely) or not 0 <= likely <= 1:
            yield f"probability {likely!r} is no number from 0 to 1"


def _mask(segmentation: Any, shape: Shape | None, area: Any, box: Any) -> Iterator[str]:
    """Run lengths, with what they are measured to be."""
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        yield "segmentation is not run lengths with size and counts"
        return
    size, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(size, list) or len(size) != 2 or not all(map(_is_count, size)):
        yield f"size {size!r} is not [height, width]"
        return
    height, width = size
    if shape and None not in shape and (height, width) != shape:
        swapped = " the other way round" if (width, height) == shape else ""
        yield f"size {size} is not [height, width] of the image{swapped}: {list(shape)}"
        return
    ends = checked_ends(counts)
    if ends is None:
        yield "counts is cut short or no run lengths"
        return
    if ends[0] < 0 or (ends[1:] < ends[:-1]).any():
        yield "counts has a run of negative length"
        return
    if ends[-1] != height * width:
        yield f"counts covers {ends[-1]} pixels, and the image has {height * width}: cut or damaged"
        return
    pixels = int(ends[1::2].sum() - ends[: len(ends) // 2 * 2 : 2].sum())
    if pixels == 0:
        yield "the mask is empty"
        return
    if area is not None and abs(area - pixels) > CLOSE:
        yield f"area {area} is not that of the mask, {pixels}"
    if box is not None:
        tight = _tight(segmentation)
        if max(abs(a - b) for a, b in zip(box, tight, strict=True)) > CLOSE:
            yield f"bbox {box} is not the tight box of the mask, {tight}"


def _tight(segmentation: Any) -> list[float]:
    if isinstance(segmentation["counts"], list):
        segmentation = coco.frPyObjects(segmentation, *segmentation["size"])
    box: list[float] = coco.toBbox(segmentation).tolist()
    return box


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    is_four = isinstance(value, list) and len(value) == 4
    return is_four and all(_is_number(number) and number >= 0 for number in value)
