"""Average precision and IoU over all pixels of a class, as DenseAV's evaluation has them.

Its code first brings the maps of the whole data set to 0..1 by one minimum and one maximum.
Neither score depends on it: it changes the order of no two pixels, and the thresholds of the IoU
lie between the least and the greatest of a class's own scores. So a class is scored by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from pipeline.evaluation.segmentation.precision import average_precision

THRESHOLDS = 20
NORMALISATIONS = ("global", "image")
"""One minimum and maximum for all maps, or those of each map."""
CLASS_COUNTS = pa.schema(
    [
        pa.field("number", pa.int32(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("pixels", pa.int64(), nullable=False),
        pa.field("positive", pa.int64(), nullable=False),
        pa.field("ap", pa.float64()),
        pa.field("iou", pa.float64()),
        pa.field("threshold", pa.float64()),
    ]
)
"""One row per class: image-class pairs, pixels of all of them and those of the class, its average
precision (null without a pixel of the class), its best IoU and the threshold of that."""


def pooled(
    maps: Sequence[Float[Tensor, "rows columns"]], size: int, normalisation: str
) -> Float32[np.ndarray, " pixel"]:
    """The scores of all pixels of all maps of a class, after bilinear interpolation.

    Args:
        maps: on the patch grid.
        size: side of the square that they become.
        normalisation: one of `NORMALISATIONS`.
    """
    scores = []
    for heat in maps:
        values = heat.float()
        if normalisation == "image":
            values = values - values.min()
            values = values / values.max().clamp_min(torch.finfo(torch.float32).tiny)
        square = torch.nn.functional.interpolate(
            values[None, None], (size, size), mode="bilinear", align_corners=False
        )
        scores.append(square.flatten().numpy(force=True))
    return np.concatenate(scores)


def best_iou(
    scores: Float[np.ndarray, " pixel"], truth: Bool[np.ndarray, " pixel"]
) -> tuple[float, float]:
    """The best of 20 IoUs, and its threshold; the first of equal ones.

    The thresholds lie evenly from the least score to the greatest, and a pixel is found above one.
    They are chosen on what is scored: the IoU is an upper bound.
    """
    thresholds = np.linspace(scores.min(), scores.max(), THRESHOLDS)
    ious = []
    for threshold in thresholds:
        found = scores > threshold
        union = np.count_nonzero(found | truth)
        ious.append(np.count_nonzero(found & truth) / union if union else 0.0)
    best = int(np.argmax(ious))
    return ious[best], float(thresholds[best])


def class_row(
    number: int, scores: Float32[np.ndarray, " pixel"], truth: Bool[np.ndarray, " pixel"], rows: int
) -> dict[str, Any]:
    """The counts of a class; see `CLASS_COUNTS`."""
    there = bool(truth.any())
    iou, threshold = best_iou(scores, truth)
    return {
        "number": number,
        "rows": rows,
        "pixels": len(scores),
        "positive": int(truth.sum()),
        "ap": average_precision(scores, truth) if there else None,
        "iou": iou if there else None,
        "threshold": threshold if there else None,
    }


def prompted_scores(table: pa.Table) -> dict[str, Any]:
    """Plain means over the classes, 0..1.

    A class without a pixel in any image counts 0 in both, as in DenseAV's evaluation.
    """
    ap, iou = (table[name].fill_null(0.0).to_numpy() for name in ("ap", "iou"))
    return {
        "map": float(ap.mean()) if len(ap) else float("nan"),
        "miou": float(iou.mean()) if len(iou) else float("nan"),
        "classes": len(ap),
        "without_pixels": table["ap"].null_count,
        "pairs": int(pa.compute.sum(table["rows"]).as_py() or 0),
    }
