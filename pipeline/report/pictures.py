"""Small pictures of masks that are to be shown: the image, its heat, the outline of the mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageFilter
from torch import Tensor

from legrad import HeatOrder
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Rejected, Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample
from pipeline.outputs.masks import decode, stored_heatmap, stretched
from pipeline.outputs.preview import overlay

SIDE = 256
"""Pixels of the longer side, at the most."""
QUALITY = 80
LINE, EDGE = (255, 214, 0), (0, 0, 0)
"""The outline is a light line with a dark one outside, to be seen on any image."""

Pixels = UInt8[np.ndarray, "height width 3"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pictures:
    """JPEG data URIs of one size.

    Attributes:
        original: the image.
        heat: as colour over the image; empty where the run stored none.
        outline: of the mask, over the image.
        width: pixels.
        height: pixels.
    """

    original: str
    heat: str
    outline: str
    width: int
    height: int

    @property
    def size(self) -> int:
        """Characters."""
        return len(self.original) + len(self.heat) + len(self.outline)


def draw_masks(
    shard: Shard,
    rows: Mapping[int, list[Row]],
    order: HeatOrder,
    identity: Mapping[str, Any],
) -> Iterator[tuple[Row, Pictures | str]]:
    """Pictures of some masks of a shard, or why there are none.

    Args:
        shard: where the images are.
        rows: of the annotation table, by sample index.
        order: of the steps from stored heat to heat.
        identity: of the run, which says how its shards are read.

    Raises:
        OSError: the shard cannot be opened.
        ShardError: it cannot be read as far as it is needed.
    """
    left = set(rows)

    def want(raw: RawSample) -> list[Row] | None:
        return rows.get(raw.index)

    for sample in ShardReader.of_run(identity, want, shrunk)(shard):
        if sample.index not in left:
            continue
        left.discard(sample.index)
        for row in rows[sample.index]:
            yield row, _draw(sample, row, order)
        if not left:
            return
    for index in sorted(left):
        yield from ((row, "the shard ends before this sample") for row in rows[index])


def _draw(sample: Any, row: Row, order: HeatOrder) -> Pictures | str:
    if sample.key != row["key"]:
        return f"its place in the shard is taken by {sample.key}: the shard has changed"
    if isinstance(sample, Rejected):
        return f"{sample.reason}: {sample.detail}"
    assert isinstance(sample, Sample)
    if (sample.height, sample.width) != (row["height"], row["width"]):
        return (
            f"the image has {sample.width} x {sample.height} pixels, and the mask "
            f"{row['width']} x {row['height']}: the shard has changed"
        )
    pixels = sample.pixels.permute(1, 2, 0).numpy()
    height, width = pixels.shape[:2]
    heat = ""
    if row["heat"] is not None:
        small = {**row, "height": height, "width": width}
        heat = data_uri(overlay(pixels, stored_heatmap(small, order)))
    mask = stretched(decode(row["segmentation"]), height, width)
    return Pictures(data_uri(pixels), heat, data_uri(outlined(pixels, mask)), width, height)


def shrunk(pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 rows columns"]:
    """The image, no side longer than `SIDE`."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((SIDE, SIDE))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def outlined(pixels: Pixels, mask: Bool[np.ndarray, "height width"]) -> Pixels:
    """The image with a line along the inner border of the mask, and the rest a little darker."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    inner = np.array(picture.filter(ImageFilter.MinFilter(5))) > 0
    outer = np.array(picture.filter(ImageFilter.MaxFilter(3))) > 0
    drawn = np.where(mask[..., None], pixels, (0.55 * pixels).astype(np.uint8))
    drawn[outer & ~mask] = EDGE
    drawn[mask & ~inner] = LINE
    return drawn


def data_uri(pixels: Pixels) -> str:
    """The picture as text that can stand in a page."""
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode('ascii')}"
