"""What LeGrad finds with the demo's CLIP: `python -m pipeline.demo.quality`.

Four numbers over scenes that training never saw, each averaged as its own field says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float

import legrad
from pipeline.demo.model import TEMPLATE, normalise, tokenize
from pipeline.demo.scenes import Scene, sample_points
from pipeline.evaluation.points import PointCounts

THRESHOLD = 0.5


@dataclass(frozen=True)
class Quality:
    """How well the maps of one model fit the masks of some scenes; all values in 0..1.

    Attributes:
        p_miou: point-wise IoU, mean over classes.
        control: the same for a mask that covers everything.
        mask_miou: IoU of the thresholded map with the visible mask, mean over (scene, class).
        pointing: how often a map's highest pixel lies on its object.
        pointing_other: how often the highest pixel of another object's map does.
    """

    p_miou: float
    control: float
    mask_miou: float
    pointing: float
    pointing_other: float

    def __str__(self) -> str:
        return (
            f"p-mIoU {self.p_miou:.3f} (all-foreground {self.control:.3f})  "
            f"mask mIoU {self.mask_miou:.3f}  pointing {self.pointing:.3f}  "
            f"with another object's map {self.pointing_other:.3f}"
        )


def measure(
    model: open_clip.CLIP, scenes: Sequence[Scene], layers: int | Sequence[int] | None = None
) -> Quality:
    """Score LeGrad's maps of `model` on `scenes`, for every class that is present."""
    explainer = legrad.build("legrad", model, layers)
    points, control = PointCounts(), PointCounts()
    ious: list[float] = []
    hits: list[bool] = []
    other_hits: list[bool] = []
    for index, scene in enumerate(scenes):
        names = list(scene.masks)
        heat = _heatmaps(explainer, model, scene, names)
        peaks = [np.unravel_index(h.argmax(), h.shape) for h in heat]
        labels = sample_points(scene, index)
        for i, name in enumerate(names):
            truth, mask = scene.masks[name], heat[i] > THRESHOLD
            points.update(name, mask, labels[name])
            control.update(name, np.ones_like(mask), labels[name])
            ious.append(float((truth & mask).sum() / (truth | mask).sum()))
            hits.append(bool(truth[peaks[i]]))
            other_hits += [bool(truth[peak]) for j, peak in enumerate(peaks) if j != i]
    means = (float(np.mean(values)) for values in (ious, hits, other_hits))
    return Quality(points.p_miou(), control.p_miou(), *means)


@torch.no_grad()
def _heatmaps(
    explainer: legrad.Explainer, model: open_clip.CLIP, scene: Scene, names: list[str]
) -> Float[np.ndarray, "name side side"]:
    device = next(model.parameters()).device
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float()
    side = model.visual.image_size
    images = normalise(F.interpolate(pixels, side, mode="bicubic", antialias=True))
    prompts = tokenize([TEMPLATE.format(name) for name in names])
    text = model.encode_text(prompts.to(device), normalize=True)
    raw = explainer(images.to(device), text, torch.zeros(len(names), dtype=torch.long))
    heat: np.ndarray = legrad.heatmap(raw, size=scene.image.shape[:2]).cpu().numpy()
    return heat
