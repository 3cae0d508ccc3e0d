"""What reading makes of the members of a tar: an image that can be used, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Int64, UInt8
from torch import Tensor

from pipeline.errors import Reject
from pipeline.inputs.naming import IMAGE_FIELDS
from pipeline.inputs.tars import RawSample

SHOWN = 5
"""Fields that a message names."""

Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class Guide:
    """What the colours of an image say about outlines, at the size that maps are refined at.

    Attributes:
        pixels: RGB.
        regions: the colour region of every pixel, numbered from 0; None until somebody asks for
            them.
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

    `file_name` is that of its image in the tar, if it has one; `images` are lost by it.
    """

    index: int
    key: str
    reason: str
    detail: str
    file_name: str | None = None
    images: int = 1


@dataclass(frozen=True)
class Skipped:
    """A sample of which nothing is wanted: its image was not decoded."""

    index: int
    key: str


def image_bytes(raw: RawSample) -> bytes:
    """The encoded image of a sample.

    Raises:
        Reject: `missing_field`, or `many_images` where the names of images have dots.
    """
    name = raw.naming.image_field(raw.fields)
    if name is not None:
        return raw.fields[name]
    there = ", ".join(f".{field}" for field in sorted(raw.members)[:SHOWN])
    there += ", …" if len(raw.members) > SHOWN else ""
    images = [field for field in raw.members if field.rpartition(".")[2] in IMAGE_FIELDS]
    if any("." in field for field in images) and not raw.naming.image:
        raise Reject(
            "many_images",
            f"{len(images)} images in one sample: {there}; their names have dots, and a key ends "
            "at the first (--key_end last_dot, or --image_field)",
            images=len(images),
        )
    wanted = raw.naming.image or ", .".join(IMAGE_FIELDS)
    raise Reject("missing_field", f"no image (.{wanted}) among {there}")


def image_name(raw: RawSample) -> str | None:
    """Name in the tar of the image of a sample, read or not; None where it has none."""
    name = raw.naming.image_field(raw.members)
    return None if name is None else raw.members[name]
