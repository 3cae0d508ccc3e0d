"""Masks and maps against ground-truth masks: counts of pixels, and scores from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from pipeline.evaluation.columns import sorted_codes
from pipeline.evaluation.segmentation.precision import average_precision, two_channel_precision
from pipeline.evaluation.segmentation.truth import ClassMasks

RULES = ("fixed", "mean")
"""Foreground is above the threshold of the run, or above the mean heat of each map."""
BACKGROUND = ""
"""Stands for the background among the classes of the multi-class counts."""
REGION_COUNTS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("pixels", pa.int64()),
        *(
            pa.field(f"{count}_{rule}", pa.int64())
            for rule in RULES
            for count in ("tp", "fp", "fn")
        ),
        pa.field("two_channel_ap", pa.float64()),
        pa.field("foreground_ap", pa.float64()),
        pa.field("intersection", pa.int64(), nullable=False),
        pa.field("union", pa.int64(), nullable=False),
        pa.field("unnamed", pa.list_(pa.int32())),
    ]
)
"""One row per image and class that is there, for two-class scores (with nulls: a class that only
was predicted), and the class's part of the one class per pixel, background included. The
background's row has the ids in the ground truth that the class file does not name, if any."""


def region_rows(
    image: str,
    truth: ClassMasks,
    heat: Float32[np.ndarray, "class height width"] | None,
    fixed: Bool[np.ndarray, "class height width"],
) -> list[dict[str, Any]]:
    """The counts of one image.

    Args:
        image: its id.
        truth: at the size of the maps.
        heat: of the classes in `truth`, 0..1; None where only masks are known.
        fixed: their masks at the threshold of the run.
    """
    counted = ~truth.ignored
    multi = _one_class_per_pixel(truth, heat, fixed)
    rows = [{"image": image, "name": BACKGROUND, **multi.get(BACKGROUND, _NOTHING)}]
    if truth.unnamed:
        rows[0]["unnamed"] = list(truth.unnamed)
    for position, name in enumerate(truth.names):
        inside = truth.masks[position][counted]
        row = {"image": image, "name": name, "pixels": inside.size, **multi.get(name, _NOTHING)}
        row |= _overlap("fixed", fixed[position][counted], inside)
        if heat is not None:
            values = heat[position][counted]
            row |= _overlap("mean", values > heat[position].mean(), inside)
            row["two_channel_ap"] = two_channel_precision(values, inside)
            row["foreground_ap"] = average_precision(values, inside)
        rows.append(row)
    return rows


_NOTHING = {"intersection": 0, "union": 0}


def _overlap(rule: str, found: np.ndarray, inside: np.ndarray) -> dict[str, int]:
    tp = int((found & inside).sum())
    return {
        f"tp_{rule}": tp,
        f"fp_{rule}": int(found.sum()) - tp,
        f"fn_{rule}": int(inside.sum()) - tp,
    }


def _one_class_per_pixel(
    truth: ClassMasks, heat: np.ndarray | None, fixed: np.ndarray
) -> dict[str, dict[str, int]]:
    """Intersection and union of every class when each pixel has one class or none.

    The prediction is the hottest class above the threshold (the first one without heat). Pixels
    of which the truth says two things do not count.
    """
    counted = ~truth.ignored & (truth.masks.sum(0) <= 1)
    expected = np.where(truth.masks.any(0), truth.masks.argmax(0) + 1, 0)[counted]
    strength = fixed.astype(np.float32) if heat is None else np.where(fixed, heat, 0)
    found = np.where(fixed.any(0), strength.argmax(0) + 1, 0)[counted]
    return {
        name: {
            "intersection": int(((expected == i) & (found == i)).sum()),
            "union": int(((expected == i) | (found == i)).sum()),
        }
        for i, name in enumerate([BACKGROUND, *truth.names])
    }


def segmentation_scores(table: pa.Table) -> dict[str, Any]:
    """All scores, 0..1, from the counts of all images.

    Pixel accuracy and IoU are over the pixels of the whole data set, not means over images.
    """
    regions = table.filter(pa.compute.is_valid(table["pixels"]))
    scores: dict[str, Any] = {"regions": regions.num_rows}
    for rule in RULES:
        if regions[f"tp_{rule}"].null_count == 0:
            scores[rule] = _two_class(regions, rule)
    for name in ("two_channel_ap", "foreground_ap"):
        values = regions[name].drop_null().to_numpy()
        if len(values) == regions.num_rows:
            scores[name] = float(values.mean())
    known = "unnamed" in table.column_names  # counts of earlier versions have it not
    unnamed = table["unnamed"].drop_null().to_pylist() if known else []
    scores["unnamed_ids"] = sorted({number for of_image in unnamed for number in of_image})
    scores["classes"] = _class_ious(table)
    scores["multi_class_miou"] = float(np.mean(list(scores["classes"].values())))
    return scores


def unpredicted(table: pa.Table) -> dict[str, Any]:
    """How many pairs were found nowhere, of how many, and the classes of which none was found."""
    regions = table.filter(pa.compute.is_valid(table["pixels"]))
    found = pa.compute.add(regions["tp_fixed"], regions["fp_fixed"]).to_numpy() > 0
    names, codes = sorted_codes(regions["name"])
    never = np.bincount(codes, found, len(names)) == 0
    return {
        "pairs": int((~found).sum()),
        "classes": [name for name, absent in zip(names, never, strict=True) if absent],
    }


def _two_class(regions: pa.Table, rule: str) -> dict[str, float]:
    """Pixel accuracy, and mean IoU of foreground and background."""
    tp, fp, fn, pixels = (
        int(pa.compute.sum(regions[name]).as_py())
        for name in (f"tp_{rule}", f"fp_{rule}", f"fn_{rule}", "pixels")
    )
    tn = pixels - tp - fp - fn
    ious = [_ratio(tp, tp + fp + fn), _ratio(tn, tn + fp + fn)]
    return {"pixel_accuracy": _ratio(tp + tn, pixels), "miou": sum(ious) / 2}


def _class_ious(table: pa.Table) -> dict[str, float]:
    """IoU of every class, background included, that is or was predicted somewhere."""
    names, codes = sorted_codes(table["name"])
    intersection, union = (
        _sums(codes, table[column].to_numpy(), len(names)) for column in ("intersection", "union")
    )
    return {
        name or "background": _ratio(int(i), int(u))
        for name, i, u in zip(names, intersection, union, strict=True)
        if u
    }


def _sums(codes: Int64[np.ndarray, " row"], values: np.ndarray, size: int) -> np.ndarray:
    # Whole numbers below 2^53: float64 is exact.
    return np.bincount(codes, values, size)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
