"""How well the maps of a method find things on scenes, whatever is made of them afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import legrad
from pipeline.demo.scenes import Scene, sample_points
from pipeline.evaluation.points.definition import PointCounts
from pipeline.evaluation.segmentation.precision import average_precision
from pipeline.models.loaded import Query, heatmaps
from pipeline.models.loading import LoadedClip

Embed: TypeAlias = Callable[[Sequence[str]], Float[Tensor, "name embed"]]

THRESHOLD = 0.5
LEVELS = np.arange(2, 81) / 100
"""Thresholds to find the best of."""


@dataclass(frozen=True)
class Quality:
    """How well the maps of one model fit the masks of some scenes; all values in 0..1.

    Attributes:
        p_miou: point-wise IoU, mean over classes.
        control: the same for a mask that covers everything.
        mask_miou: IoU of the thresholded map with the visible mask, mean over (scene, class).
        mious: the same at each of `LEVELS`.
        pixel_ap: average precision of the map's pixels, mean over (scene, class).
        pointing: how often a map's highest pixel lies on its object.
        pointing_other: how often the highest pixel of another object's map does.
        images_per_second: from images and text embeddings to heatmaps, one image at a time, in
            processor time.
    """

    p_miou: float
    control: float
    mask_miou: float
    mious: tuple[float, ...]
    pixel_ap: float
    pointing: float
    pointing_other: float
    images_per_second: float

    def __str__(self) -> str:
        return (
            f"p-mIoU {self.p_miou:.3f} (all-foreground {self.control:.3f})  "
            f"mask mIoU {self.mask_miou:.3f}  pixel AP {self.pixel_ap:.3f}  "
            f"pointing {self.pointing:.3f}  "
            f"with another object's map {self.pointing_other:.3f}"
        )


def measure(
    model: LoadedClip, scenes: Sequence[Scene], embed: Embed | None = None, **settings: Any
) -> Quality:
    """Score a method's maps of `model` on `scenes`, for every class that is present.

    Args:
        model: the demo's CLIP.
        scenes: with the masks of what is in them.
        embed: from names of classes to what is looked for; None: their texts.
        settings: of `MethodConfig`, where they are not the model's own.
    """
    explainer = model.explainer(**settings)
    points, control = PointCounts(), PointCounts()
    seconds: list[float] = []
    swept: list[Float[np.ndarray, " level"]] = []
    precisions: list[float] = []
    hits: list[bool] = []
    other_hits: list[bool] = []
    for index, scene in enumerate(scenes):
        names = list(scene.masks)
        query = _query(model, scene, names, embed or model.text)
        started = time.process_time()
        heat = _heatmaps(model, explainer, query, scene)
        seconds.append(time.process_time() - started)
        peaks = [np.unravel_index(h.argmax(), h.shape) for h in heat]
        labels = sample_points(scene, index)
        for i, name in enumerate(names):
            truth, mask = scene.masks[name], heat[i] > THRESHOLD
            points.update(name, mask, labels[name])
            control.update(name, np.ones_like(mask), labels[name])
            swept.append(ious_at(LEVELS, heat[i], truth))
            precisions.append(average_precision(heat[i], truth))
            hits.append(bool(truth[peaks[i]]))
            other_hits += [bool(truth[peak]) for j, peak in enumerate(peaks) if j != i]
    mious = np.mean(swept, axis=0).tolist()
    return Quality(
        p_miou=points.p_miou(),
        control=control.p_miou(),
        mask_miou=mious[LEVELS.tolist().index(THRESHOLD)],
        mious=tuple(mious),
        pixel_ap=float(np.mean(precisions)),
        pointing=float(np.mean(hits)),
        pointing_other=float(np.mean(other_hits)),
        images_per_second=1 / float(np.median(seconds)),
    )


def ious_at(
    levels: Float[np.ndarray, " level"],
    heat: Float[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
) -> Float[np.ndarray, " level"]:
    """IoU with a mask of the pixels whose heat exceeds each of some rising levels."""
    exceeded = np.searchsorted(levels, heat)  # how many levels each pixel exceeds
    above = [
        np.bincount(exceeded[part], minlength=len(levels) + 1)[::-1].cumsum()[::-1][1:]
        for part in (truth, ~truth)
    ]
    found: np.ndarray = above[0] / (truth.sum() + above[1])
    return found


def _query(model: LoadedClip, scene: Scene, names: list[str], embed: Embed) -> Query:
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1)
    return Query(model.squash(pixels), embed(names))


def _heatmaps(
    model: LoadedClip, explainer: legrad.Explainer, query: Query, scene: Scene
) -> Float[np.ndarray, "name height width"]:
    (explanation,) = model.explain(explainer, [query])
    height, width = scene.image.shape[:2]
    heat: np.ndarray = heatmaps(explainer, explanation.raw, (height, width)).cpu().numpy()
    return heat
