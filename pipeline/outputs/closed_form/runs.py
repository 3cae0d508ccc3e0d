"""Runs of foreground down the columns of pixels, and their COCO encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from pycocotools import mask as coco
from torch import Tensor

from pipeline.outputs.masks import RLE


@dataclass(frozen=True)
class Runs:
    """Runs of foreground down the columns, of several maps one after the other.

    `starts` and `ends` (exclusive) are pixels down the columns; where map m begins and ends in
    them, `splits` says.
    """

    height: int
    width: int
    starts: Int64[np.ndarray, " run"]
    ends: Int64[np.ndarray, " run"]
    splits: Int64[np.ndarray, " split"]

    def encode(self) -> list[RLE]:
        """COCO's run lengths of every map."""
        size = [self.height, self.width]
        encoded = []
        for begin, end in zip(self.splits[:-1], self.splits[1:], strict=True):
            bounds = np.empty(2 * (end - begin) + 2, np.int64)
            bounds[0], bounds[-1] = 0, self.height * self.width
            bounds[1:-1:2], bounds[2:-1:2] = self.starts[begin:end], self.ends[begin:end]
            counts = np.diff(bounds)
            if counts[-1] == 0 and len(counts) > 1:
                counts = counts[:-1]
            plain: Any = {"size": size, "counts": counts}
            rle: Any = coco.frPyObjects(plain, self.height, self.width)
            encoded.append(RLE(size=size, counts=rle["counts"].decode("ascii")))
        return encoded


def joined(
    map_of: Int64[Tensor, " run"],
    column: Int64[Tensor, " run"],
    begin: Int64[Tensor, " run"],
    end: Int64[Tensor, " run"],
    shape: tuple[int, int, int],
) -> tuple[Runs, Int64[Tensor, " map"]]:
    """Runs that touch put together, and the area of each map, both on the CPU.

    Args:
        map_of: of each run, in order of maps, columns and pixels.
        column: of each run.
        begin: its first pixel.
        end: the one after its last; runs without a pixel are left out.
        shape: (maps, height, width).
    """
    count, height, width = shape
    apart = height * width + 1  # so that no map touches the next
    top = map_of * apart + column * height
    filled = end > begin
    starts, ends = (top + begin)[filled], (top + end)[filled]
    is_new = torch.ones_like(starts, dtype=torch.bool)
    is_new[1:] = starts[1:] != ends[:-1]
    starts, ends = starts[is_new].cpu(), ends[is_new.roll(-1)].cpu()
    maps = torch.arange(count + 1) * apart
    splits = torch.searchsorted(starts, maps)
    areas = torch.cat([starts.new_zeros(1), (ends - starts).cumsum(0)])[splits].diff()
    moved = maps[:-1].repeat_interleave(splits.diff())
    parts = (part.numpy() for part in (starts - moved, ends - moved, splits))
    return Runs(height, width, *parts), areas
