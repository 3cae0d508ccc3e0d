"""Looking pixels up in COCO's compressed run lengths, without decoding the mask.

A mask of a megapixel has a few thousand runs, so that a handful of points costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.outputs.masks import RLE

CONTINUES, SIGN, BITS = 0x20, 0x10, 5
"""A number is written in groups of five bits, low ones first; the last group has the sign."""
OFFSET = ord("0")
CHARACTERS = frozenset(chr(OFFSET + value) for value in range(2 * CONTINUES))
LONGEST = 1 << 40
"""No run is longer, so that their sum does not overflow."""


def run_ends(counts: str) -> Int64[np.ndarray, " run"]:
    """Where each run ends, in pixels down the columns; runs of 0 and of 1 alternate, 0 first."""
    groups = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - OFFSET
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


def checked_ends(counts: Any) -> Int64[np.ndarray, " run"] | None:
    """The same of run lengths of either kind, from anybody; None where they are none.

    Args:
        counts: a text or a list, or anything else.
    """
    if not counts:
        return None
    if isinstance(counts, str):
        is_whole = CHARACTERS.issuperset(counts) and ord(counts[-1]) - OFFSET < CONTINUES
        return run_ends(counts) if is_whole else None
    if isinstance(counts, list) and all(type(n) is int and abs(n) <= LONGEST for n in counts):
        ends: np.ndarray = np.cumsum(np.array(counts, dtype=np.int64))
        return ends
    return None


def pixels_set(
    segmentation: RLE, rows: Int64[np.ndarray, " point"], columns: Int64[np.ndarray, " point"]
) -> Bool[np.ndarray, " point"]:
    """Whether the mask has a 1 at each of some pixels inside it."""
    position = columns * segmentation["size"][0] + rows
    run = np.searchsorted(run_ends(segmentation["counts"]), position, side="right")
    inside: np.ndarray = run % 2 == 1
    return inside
