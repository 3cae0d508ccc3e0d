"""The folders of ADE20K Sound Prompted and Speech Prompted, as DenseAV's authors pack them.

ROOT/prompted_segmentation.csv has a row per image and class; ROOT/frames/ has the images,
ROOT/annotations/ the classes of their pixels, ROOT/audio/ the sounds. A class is a shard, with
`ROOT#NUMBER` for a location: its score needs all of its rows, and no others.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline import storage
from pipeline.errors import ConfigError, Reject, one_line
from pipeline.inputs.images import check_size
from pipeline.inputs.shards import Shard
from pipeline.storage import digests

TABLE = "prompted_segmentation.csv"
COLUMNS = {"speech": "speech_prompt_file", "sound": "vggsound_file"}
"""The column that names the sound, by kind of prompt."""
LAST_CLASS = 25 * 256 + 255
"""The largest number that a colour of `_seg.png` can say."""
LONGEST_SIDE = 50
"""In the shorter one: of a longer image, almost nothing is in the square in its middle."""
MOST_SECONDS = 1e9
"""Of a time in the table: no sound is so long."""
SLACK = 0.02
"""How far the ratios of the sides of an image and of its classes may be from each other."""


@dataclass(frozen=True)
class Row:
    """An image, a class in it, and a sound of that class.

    Attributes:
        image: below `frames`, with folders if it lies in one.
        number: of the class, in the full ADE20K.
        sound: below `audio`.
        timing: seconds at which the class is said, begin and end; None where that is not known.
    """

    image: str
    number: int
    sound: str
    timing: tuple[float, float] | None


@dataclass(frozen=True)
class Table:
    """What the .csv says.

    Attributes:
        rows: by class, in the order of the file.
        left_out: rows that are not scored, by reason.
        digest: of the file.
    """

    rows: dict[int, list[Row]]
    left_out: dict[str, int]
    digest: str


def read_table(root: str, kind: str) -> Table:
    """The rows that have a class and a sound of this kind.

    Args:
        root: the folder of the data set.
        kind: one of `COLUMNS`.

    Raises:
        ConfigError: there is no such table, a column is missing, or a row says something else.
    """
    location = storage.join(root, TABLE)
    shown = f"--root {storage.public(root)}: {TABLE}"
    try:
        data = storage.read_bytes(location)
        entries = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        wanted = ("image_location", "ade_class_id", COLUMNS[kind])
        missing = [column for column in wanted if column not in (entries.fieldnames or ())]
        if missing:
            raise ConfigError(f"{shown}: has no column {', '.join(missing)}")
        rows: dict[int, list[Row]] = {}
        left_out: Counter[str] = Counter()
        for line, entry in enumerate(entries, 2):
            try:
                number = _number(entry["ade_class_id"])
                sound = posixpath.basename(entry[COLUMNS[kind]] or "")
                timing = _timing(entry.get("timing")) if kind == "speech" else None
            except ConfigError as error:
                raise ConfigError(f"{shown}, row {line}: {error}") from error
            if number == 0 or not sound:
                left_out["no class" if number == 0 else f"no {kind}"] += 1
                continue
            if not entry["image_location"]:
                raise ConfigError(f"{shown}, row {line}: it has no image_location")
            rows.setdefault(number, []).append(Row(entry["image_location"], number, sound, timing))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{shown}: there is no such file; give the folder that has it, frames/, annotations/ "
            "and audio/"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{shown}: not a table: {one_line(error)}") from error
    if not rows:
        raise ConfigError(f"{shown}: no row has a class and a {kind}")
    return Table(dict(sorted(rows.items())), dict(left_out), digests.of_bytes(data))


def _number(text: str | None) -> int:
    """A class; tables that went through other programs have 17.0 for 17."""
    try:
        number = float(text or "")
    except ValueError:
        number = -1
    if not (0 <= number <= LAST_CLASS and number.is_integer()):
        raise ConfigError(f"ade_class_id {text!r} is not a whole number from 0 to {LAST_CLASS}")
    return int(number)


def _timing(text: str | None) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, list) and len(found) == 2 and all(map(_is_time, found))):
        raise ConfigError(f"timing {text[:80]!r} is not [begin, end] in seconds")
    return float(found[0]), float(found[1])


def _is_time(value: Any) -> bool:
    """Whether it is a number of seconds; JSON's numbers may have any size."""
    return type(value) in (int, float) and abs(value) < MOST_SECONDS


def class_shards(root: str, table: Table) -> list[Shard]:
    """A shard for every class."""
    uri = storage.normalise(root)
    return [
        Shard(f"{root}#{number}", f"{uri}/class-{number:04d}", len(rows))
        for number, rows in table.rows.items()
    ]


def class_of(shard: Shard) -> int:
    """The class of a shard."""
    return int(shard.location.rpartition("#")[2])


def check_length(height: int, width: int) -> None:
    """See that `fit` does not fill the memory with one image.

    Raises:
        Reject: `too_long`.
    """
    if max(height, width) > LONGEST_SIDE * min(height, width):
        raise Reject("too_long", f"{width}x{height} pixels")


def check_shapes(image: tuple[int, int], classes: tuple[int, int]) -> None:
    """See that an image and its classes are of the same view, so that `fit` keeps the same part.

    Args:
        image: its height and width.
        classes: those of the classes of its pixels; they may be smaller or larger than the image.

    Raises:
        Reject: `other_size`.
    """
    ratio = image[0] * classes[1] / (image[1] * classes[0])
    if not 1 - SLACK <= ratio <= 1 + SLACK:
        what = f"{classes[1]}x{classes[0]} pixels, and the image {image[1]}x{image[0]}"
        raise Reject("other_size", f"its classes have {what}")


def fit(pixels: UInt8[Tensor, "3 height width"], size: int) -> UInt8[Tensor, "3 {size} {size}"]:
    """The middle of an image whose shorter side becomes `size`, bilinear."""
    resized = transforms.resize(pixels, [size], InterpolationMode.BILINEAR, antialias=True)
    middle: Tensor = transforms.center_crop(resized, [size, size])
    return middle


def read_label(
    data: bytes, number: int, size: int, image: tuple[int, int], max_pixels: int
) -> Bool[Tensor, "{size} {size}"]:
    """Where a class is, in the part of an image that `fit` keeps; nearest pixel.

    The number of a pixel's class is a tenth of its red, without the rest, times 256, and its green.

    Args:
        data: a PNG of ADE20K's `_seg.png`.
        number: of the class.
        size: side of the square.
        image: height and width of the image.
        max_pixels: a larger PNG is refused undecoded.

    Raises:
        Reject: `bad_mask` or `too_large`, or see `check_shapes`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
            check_size(opened, max_pixels)
            check_shapes(image, (opened.height, opened.width))
            classes = opened.convert("RGB")
    except Reject:
        raise
    except Exception as error:  # damaged files lead Pillow's decoders to raise almost anything
        raise Reject("bad_mask", one_line(error, kind=True)) from error
    classes = transforms.resize(classes, [size], InterpolationMode.NEAREST)
    colours = np.array(transforms.center_crop(classes, [size, size]), dtype=np.int64)
    return torch.from_numpy(class_numbers(colours) == number)


def class_numbers(colours: np.ndarray) -> np.ndarray:
    """Numbers of classes from the last axis, red, green, blue; 0 is none."""
    numbers: np.ndarray = colours[..., 0] // 10 * 256 + colours[..., 1]
    return numbers


def label_name(image: str) -> str:
    """Where the classes of an image are, below `annotations`."""
    return image.replace(".jpg", "_seg.png")
