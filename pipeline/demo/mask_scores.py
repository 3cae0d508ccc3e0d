"""Every score of masks whose truth is known: of the bench, `python -m pipeline.demo.quality`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import spearmanr

from pipeline.evaluation.points.definition import Point, PointCounts
from pipeline.evaluation.segmentation.boundary import band_iou, boundary_f, iou
from pipeline.outputs.annotations import Annotation
from pipeline.outputs.masks import decode, encode, measure

BAD = 0.25
"""IoU below which a mask is bad: it shows another thing, or nothing."""


@dataclass(frozen=True)
class Truth:
    """What is in an image.

    Attributes:
        masks: class name → where it is.
        points: class name → labelled points; none where there are none.
    """

    masks: dict[str, Bool[np.ndarray, "height width"]]
    points: dict[str, list[Point]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A class of an image, and what was found for it.

    Attributes:
        image: number of the image.
        name: of the class.
        truth: where it is.
        found: its mask; nothing, where it has none.
        annotation: all that was found.
    """

    image: int
    name: str
    truth: Bool[np.ndarray, "height width"]
    found: Bool[np.ndarray, "height width"]
    annotation: Annotation

    @classmethod
    def of(cls, image: int, truth: Truth, annotation: Annotation) -> Pair:
        """The pair of an annotation with the truth of its image."""
        name = annotation.prompt.category
        assert name is not None
        of_class, mask = truth.masks[name], annotation.mask
        found = np.zeros_like(of_class) if mask is None else decode(mask.segmentation)
        return cls(image, name, of_class, found, annotation)


def overlap_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    """Scores of every mask for itself, 0..1, as means over (image, class)."""
    ious = np.array([iou(pair.found, pair.truth) for pair in pairs])
    return {
        "mask_miou": float(ious.mean()),
        "band_iou": float(np.nanmean([band_iou(pair.found, pair.truth) for pair in pairs])),
        "boundary_f": float(np.mean([boundary_f(pair.found, pair.truth) for pair in pairs])),
        "bad_share": float((ious < BAD).mean()),
    }


def coco_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    """COCO's AP, AP50 and AP75 of masks, 0..1, for given classes; `score` ranks them."""
    names = {name: number for number, name in enumerate(sorted({p.name for p in pairs}), 1)}
    sizes = {p.image: p.truth.shape for p in pairs}
    entries = [_entry(number, names[p.name], p) for number, p in enumerate(pairs, 1)]
    with redirect_stdout(StringIO()):  # it prints what it does
        truth, found = COCO(), COCO()
        for half, side in ((truth, "truth"), (found, "found")):
            content: Any = {  # less than the stubs want, and all that is read
                "images": [
                    {"id": image + 1, "height": height, "width": width}
                    for image, (height, width) in sizes.items()
                ],
                "categories": [{"id": number, "name": name} for name, number in names.items()],
                "annotations": [e[side] for e in entries if e[side]["area"]],
            }
            half.dataset = content
            half.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (float(value) for value in evaluation.stats[:3])
    return {"ap": ap, "ap50": ap50, "ap75": ap75}


def _entry(number: int, category: int, pair: Pair) -> dict[str, dict[str, Any]]:
    common = {"id": number, "image_id": pair.image + 1, "category_id": category, "iscrowd": 0}
    sides = {}
    for side, mask in (("truth", pair.truth), ("found", pair.found)):
        (segmentation,) = encode(np.asfortranarray(mask[..., None], dtype=np.uint8))
        area, bbox = measure(segmentation)
        score = pair.annotation.score
        sides[side] = {**common, "segmentation": segmentation, "area": area, "bbox": bbox} | (
            {"score": score} if side == "found" else {}
        )
    return sides


def point_miou(pairs: Sequence[Pair], truths: Sequence[Truth]) -> float:
    """Point-wise IoU, mean over classes, 0..1; NaN where no image has points."""
    counts = PointCounts()
    for pair in pairs:
        counts.update(pair.name, pair.found, truths[pair.image].points.get(pair.name, []))
    return counts.p_miou()


def signals(pairs: Sequence[Pair]) -> dict[str, float]:
    """Rank correlation (Spearman) of the IoU with what a table says of each mask, -1..1."""
    masks = [(p, p.annotation.mask) for p in pairs if p.annotation.mask is not None]
    ious = [iou(pair.found, pair.truth) for pair, _ in masks]
    columns = {
        "heat_mean": [mask.heat_mean for _, mask in masks],
        "score": [pair.annotation.score for pair, _ in masks],
        "raw_max": [pair.annotation.raw_max for pair, _ in masks],
        "area": [mask.area for _, mask in masks],
    }
    return {name: float(spearmanr(values, ious).statistic) for name, values in columns.items()}


def paired(
    differences: Float[np.ndarray, " pair"], images: Int[np.ndarray, " pair"]
) -> tuple[float, float]:
    """Mean of differences, and its standard error with the pairs of an image as one draw.

    The classes of one image are not independent, so that the error is that of a ratio of sums over
    images (the cluster-robust one), which equals the usual one where every image has one pair. NaN
    for a single image.
    """
    mean = float(differences.mean())
    groups, codes = np.unique(images, return_inverse=True)
    sums = np.bincount(codes, differences - mean)
    count = len(groups)
    if count < 2:
        return mean, float("nan")
    error = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(differences)
    return mean, float(error)
