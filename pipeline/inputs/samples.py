"""What reading makes of the members of a tar: an image that can be used, or why there is none."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Int64, UInt8
from torch import Tensor

from pipeline.errors import Reject
from pipeline.inputs.tars import RawSample

IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp")

Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class Guide:
    """What the colours of an image say about outlines, at the size that maps are refined at.

    Attributes:
        pixels: RGB.
        regions: the colour region of every pixel, numbered from 0; None where none are asked for.
    """

    pixels: UInt8[Tensor, "3 height width"]
    regions: Int64[Tensor, "height width"] | None = None


@dataclass(frozen=True)
class Sample(Generic[Wanted]):
    """An image with what was wanted of it.

    Attributes:
        index: position in the shard, from 0.
        key: WebDataset key.
        height: stored pixels.
        width: stored pixels.
        pixels: RGB, at the size that was asked for.
        wanted: what to look for, or what is known to be there; see `ShardReader`.
        file_name: of the image in the tar; None where it is no member of its own.
        guide: where maps are refined by the image's colours.
    """

    index: int
    key: str
    height: int
    width: int
    pixels: UInt8[Tensor, "3 rows columns"]
    wanted: Wanted
    file_name: str | None = None
    guide: Guide | None = None


@dataclass(frozen=True)
class Rejected:
    """A sample that cannot be used; `reason` and `detail` are those of `Reject`.

    `file_name` is that of its image in the tar, if it has one.
    """

    index: int
    key: str
    reason: str
    detail: str
    file_name: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A sample of which nothing is wanted: its image was not decoded."""

    index: int
    key: str


def image_field(fields: Container[str]) -> str | None:
    """Which of the fields of a sample is its image; None where none is."""
    return next((name for name in IMAGE_FIELDS if name in fields), None)


def image_bytes(raw: RawSample) -> bytes:
    """The encoded image of a sample.

    Raises:
        Reject: `missing_field`.
    """
    name = image_field(raw.fields)
    if name is None:
        raise Reject("missing_field", f"no image (.{', .'.join(IMAGE_FIELDS)})")
    return raw.fields[name]


def image_name(raw: RawSample) -> str | None:
    """Name in the tar of the image of a sample, read or not; None where it has none."""
    name = image_field(raw.members)
    return None if name is None else raw.members[name]
