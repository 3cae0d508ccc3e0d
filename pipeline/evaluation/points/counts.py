"""The counts of pairs of image and class: points on a mask, and what they are merged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from pipeline import storage
from pipeline.evaluation.points.pairs import LabelledPairs, PairPoints
from pipeline.evaluation.points.pictures import PICTURE

Row = dict[str, Any]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Of the sweep over mask thresholds."""
PAIRS_FILE = "pairs.parquet"
PAIR_COUNTS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("yes", pa.int32(), nullable=False),
        pa.field("no", pa.int32(), nullable=False),
        pa.field("tp", pa.int32(), nullable=False),
        pa.field("fp", pa.int32(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("tp_at", pa.list_(pa.int32())),
        pa.field("fp_at", pa.list_(pa.int32())),
        pa.field("rebuilt_intersection", pa.int64()),
        pa.field("rebuilt_union", pa.int64()),
        pa.field("picture", PICTURE),
    ]
)
"""One row per pair of image and class: its points, those that the mask covers (also at each of
`THRESHOLDS`, where there is heat), the mask's score (null: there is no mask), the overlap of
the mask with the one that its heat gives back, and of a few images the mask to draw."""


def pair_counts(
    image: str, points: PairPoints, inside: Bool[np.ndarray, " point"], score: float | None
) -> Row:
    """A row of `PAIR_COUNTS` for points of which some are `inside` a mask; no score, no mask."""
    yes = int(points.yes.sum())
    return {
        "image": image,
        "label": points.label.id,
        "yes": yes,
        "no": len(points.yes) - yes,
        "tp": int((inside & points.yes).sum()),
        "fp": int((inside & ~points.yes).sum()),
        "score": score,
        "tp_at": None,
        "fp_at": None,
        "rebuilt_intersection": None,
        "rebuilt_union": None,
        "picture": None,
    }


def swept(points: PairPoints, heat: Float32[np.ndarray, " point"]) -> Row:
    """True and false positives at each of `THRESHOLDS`."""
    inside = heat > np.array(THRESHOLDS, dtype=np.float32)[:, None]
    return {
        "tp_at": (inside & points.yes).sum(1).tolist(),
        "fp_at": (inside & ~points.yes).sum(1).tolist(),
    }


def load_pairs(output: str) -> LabelledPairs:
    """The points that a run has put below its output for its workers."""
    return LabelledPairs.from_parquet(storage.read_bytes(storage.join(output, PAIRS_FILE)))
