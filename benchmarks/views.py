"""What views of an image bring on the demo's scenes, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from jaxtyping import Float64

import legrad
from benchmarks.timing import at_least_one, table
from pipeline.config import ExecutionConfig, RunConfig, ViewsConfig
from pipeline.demo.map_quality import ious_at
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.scenes import Scene
from pipeline.models.loaded import Query, heatmaps
from pipeline.models.loading import LoadedClip

THRESHOLDS = tuple(round(0.3 + 0.02 * step, 2) for step in range(16))
VARIANTS: dict[str, ViewsConfig] = {
    "none": ViewsConfig(),
    "`flip`": ViewsConfig(flip=True),
    "`shifts 2`": ViewsConfig(shifts=2),
    "`shifts 2`, `flip`": ViewsConfig(shifts=2, flip=True),
    "`shifts 4`": ViewsConfig(shifts=4),
    "`scales '[1, 1.5]'`": ViewsConfig(scales=[1.0, 1.5]),
    "`shifts 2`, `scales '[1, 1.5]'`": ViewsConfig(shifts=2, scales=[1.0, 1.5]),
}


@dataclass(frozen=True)
class Tried:
    """One image explained with some views.

    Attributes:
        ious: of each object's mask at each of `THRESHOLDS`.
        seconds: of processor time, from model input to raw maps.
    """

    ious: Float64[np.ndarray, "threshold object"]
    seconds: float


def measure(layers: float | int, step: int, threads: int) -> dict[str, dict[str, float]]:
    """IoU and time of every variant, image by image in turns.

    Args:
        layers: as `--layers`.
        step: every which of the bundle's scenes is taken.
        threads: PyTorch's.
    """
    at_least_one(step=step, threads=threads)
    torch.set_num_threads(threads)
    engine = ExecutionConfig(executor="local", device="cpu", threads=threads)
    models = {
        name: LoadedClip(RunConfig(layers=layers, views=views, engine=engine))
        for name, views in VARIANTS.items()
    }
    explainers = {name: model.explainer() for name, model in models.items()}
    tried: dict[str, list[Tried]] = {name: [] for name in VARIANTS}
    for scene in bundled_scenes()[::step]:
        for name, model in models.items():
            tried[name].append(_try(model, explainers[name], scene))
    plain = median(one.seconds for one in tried["none"])
    return {name: _figures(ones, VARIANTS[name], plain) for name, ones in tried.items()}


def markdown(results: Mapping[str, Mapping[str, float]]) -> str:
    """The table."""
    rows = [
        [
            name,
            f"{row['passes']:.0f}",
            f"{row['mask_miou']:.3f}",
            f"{row['threshold']:.2f}",
            f"{row['at_half']:.3f}",
            f"{row['time']:.1f}",
        ]
        for name, row in results.items()
    ]
    header = ["`--views.`", "passes", "mask mIoU", "at threshold", "mask mIoU at 0.5", "time"]
    return table(header, rows)


def _try(model: LoadedClip, explainer: legrad.Explainer, scene: Scene) -> Tried:
    names = list(scene.masks)
    pixels = model.squash(torch.from_numpy(scene.image).permute(2, 0, 1))
    query = Query(pixels, model.text(names))
    started = time.process_time()
    (explanation,) = model.explain(explainer, [query])
    seconds = time.process_time() - started
    height, width = scene.image.shape[:2]
    heat = heatmaps(explainer, explanation.raw, (height, width)).numpy()
    levels = np.array(THRESHOLDS, np.float32)
    pairs = zip(heat, (scene.masks[name] for name in names), strict=True)
    return Tried(np.stack([ious_at(levels, *pair) for pair in pairs], axis=1), seconds)


def _figures(tried: Sequence[Tried], views: ViewsConfig, plain: float) -> dict[str, float]:
    by_threshold = np.concatenate([one.ious for one in tried], axis=1).mean(1)
    best = int(by_threshold.argmax())
    return {
        "passes": float(views.shifts * (1 + views.flip) * len(views.scales)),
        "mask_miou": float(by_threshold[best]),
        "threshold": THRESHOLDS[best],
        "at_half": float(by_threshold[THRESHOLDS.index(0.5)]),
        "time": median(one.seconds for one in tried) / plain,
    }
