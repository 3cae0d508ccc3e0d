"""Looking pixels up in COCO's compressed run lengths, without decoding the mask.

A mask of a megapixel has a few thousand runs, so that a handful of points costs next to nothing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.outputs.masks import RLE

CONTINUES, SIGN, BITS = 0x20, 0x10, 5
"""A number is written in groups of five bits, low ones first; the last group has the sign."""


def run_ends(counts: str) -> Int64[np.ndarray, " run"]:
    """Where each run ends, in pixels down the columns; runs of 0 and of 1 alternate, 0 first."""
    groups = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    last = (groups & CONTINUES) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    sizes = np.diff(starts, append=len(groups))
    place = np.arange(len(groups)) - np.repeat(starts, sizes)
    values = np.add.reduceat((groups & (CONTINUES - 1)) << (BITS * place), starts)
    negative = (groups[last] & SIGN) != 0
    values[negative] -= np.int64(1) << (BITS * sizes[negative])
    # From the fourth on, a run is written as its difference to the one before the last.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    ends: np.ndarray = np.cumsum(values)
    return ends


def pixels_set(
    segmentation: RLE, rows: Int64[np.ndarray, " point"], columns: Int64[np.ndarray, " point"]
) -> Bool[np.ndarray, " point"]:
    """Whether the mask has a 1 at each of some pixels inside it."""
    position = columns * segmentation["size"][0] + rows
    run = np.searchsorted(run_ends(segmentation["counts"]), position, side="right")
    inside: np.ndarray = run % 2 == 1
    return inside
