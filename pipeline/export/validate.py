"""A COCO file of any size against what its readers rely on, one line per finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, naming
from pipeline.export import checks
from pipeline.export.checks import Shape
from pipeline.export.json_stream import Damaged, Element, elements

LISTS = ("images", "categories", "annotations")
SECTIONS = ("info", "licenses", *LISTS)


@dataclass(frozen=True)
class ValidateConfig:
    """Checks COCO instances or results: schema, ids, references, every mask with area and box."""

    file: str = ""
    """The file; --file may be left out before it."""
    most: int = 1000
    """Findings that are shown; their number is always told."""

    def __post_init__(self) -> None:
        if not self.file:
            raise ConfigError("name the file to check: export.py validate FILE")


@dataclass
class _Known:
    """What was read of a file so far."""

    sections: set[str] = field(default_factory=set)
    images: dict[int, Shape] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    categories: set[int] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    objects: set[int] = field(default_factory=set)


def validate(config: ValidateConfig) -> Iterator[str]:
    """Every finding, in the order of the file.

    Memory does not grow with the masks, only with the number of records (some 200 bytes each).

    Raises:
        ConfigError: the file cannot be read.
    """
    with naming(f"FILE {storage.public(config.file)}"):
        storage.open_read(config.file).__exit__(None, None, None)
    known, is_late = _Known(), False
    try:
        for element in elements(config.file):
            if element.section == "annotations" and not {"images", "categories"} <= known.sections:
                is_late = True  # what they refer to comes behind them
            else:
                yield from _check(element, known)
            known.sections.add(element.section)
        if is_late:
            for element in elements(config.file):
                if element.section == "annotations":
                    yield from _check(element, known)
    except Damaged as error:
        yield f"not complete JSON: {error}"
        return
    if "" not in known.sections:
        yield from (f"has no {name}" for name in SECTIONS if name not in known.sections)
        if known.categories and known.categories != set(range(1, len(known.categories) + 1)):
            count = len(known.categories)
            yield f"categories: ids are not 1 to {count} without gaps: trainers count up to {count}"


def _check(element: Element, known: _Known) -> Iterator[str]:
    section, index, record = element
    if section not in ("", *LISTS):
        return
    if index is None:
        if record != []:
            yield f"{section}: is no list"
        return
    where = f"{section or 'results'}[{index}]"
    if not isinstance(record, dict):
        yield f"{where}: is no record"
        return
    if type(record.get("id")) is int:
        where += f" id {record['id']}"
    for finding in (*checks.missing(section, record), *_findings(section, record, known)):
        yield f"{where}: {finding}"


def _findings(section: str, record: dict[str, Any], known: _Known) -> Iterator[str]:
    number = record.get("id")
    if section == "":
        yield from checks.result(record)
    elif section == "images":
        yield from checks.image(record)
        yield from _repeated("file_name", record.get("file_name"), known.names)
        if type(number) is int:
            yield from _repeated("id", number, known.images)
            sides = (record.get("height"), record.get("width"))
            known.images[number] = Shape(*(side if type(side) is int else None for side in sides))
    elif section == "categories":
        yield from checks.category(record)
        yield from _repeated("name", record.get("name"), known.labels)
        yield from _repeated("id", number, known.categories)
    else:
        of = record.get("image_id")
        shape = known.images.get(of) if type(of) is int else None
        yield from checks.annotation(record, shape)
        yield from _repeated("id", number, known.objects)
        if "image_id" in record and shape is None:
            yield f"image_id {of!r}: there is no such image"
        label = record.get("category_id")
        if "category_id" in record and not (type(label) is int and label in known.categories):
            yield f"category_id {label!r}: there is no such category"


def _repeated(key: str, value: Any, seen: Any) -> Iterator[str]:
    """Say that a value was there before; values of a set are noted."""
    if type(value) not in (int, str):
        return
    if value in seen:
        yield f"{key} {value!r} was there before"
    elif isinstance(seen, set):
        seen.add(value)
