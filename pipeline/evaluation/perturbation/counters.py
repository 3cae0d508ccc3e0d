"""Perturbation: how fast accuracy falls when the pixels that a map finds important are blackened.

Positive: the hottest pixels go first, and a good map makes accuracy fall fast (lower is better).
Negative: the coldest go first (higher is better). The area is over 0 to 90 % of the pixels gone,
the clean accuracy included, so that it is 90 at the most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from pipeline.evaluation.batches import Batches
from pipeline.evaluation.class_names import ClassNames
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Counted
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import Shard
from pipeline.models.halving import halves, in_halves
from pipeline.models.loaded import Query, heatmaps
from pipeline.models.loading import load

STEPS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""Fractions of the pixels that are removed."""
SIGNS = ("negative", "positive")
KINDS = ("predicted", "target")
"""The map explains the class that the model predicts for the clean image, or the true one."""
CURVES = tuple(f"{sign}_{kind}" for sign in SIGNS for kind in KINDS)
IMAGE_COUNTS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),
        pa.field("predicted", pa.int32(), nullable=False),
        *(pa.field(curve, pa.list_(pa.bool_()), nullable=False) for curve in CURVES),
    ]
)
"""One row per image: true and predicted class, and whether the true one is still predicted after
each of `STEPS`."""


def removal_order(heat: Float[Tensor, "height width"], sign: str) -> Int64[Tensor, " pixel"]:
    """Flat positions of the pixels in the order in which they go.

    Pixels of equal heat go in ascending order of their position, for both signs.
    """
    values = heat.flatten()
    return torch.argsort(-values if sign == "positive" else values, stable=True)


def perturbed(
    pixels: UInt8[Tensor, "3 height width"], order: Int64[Tensor, " pixel"]
) -> UInt8[Tensor, "step 3 height width"]:
    """The image after each of `STEPS`; removed pixels are black, before any normalisation."""
    images = pixels.repeat(len(STEPS), 1, 1, 1)
    for image, step in zip(images, STEPS, strict=True):
        image.view(3, -1)[:, order[: int(len(order) * step)]] = 0
    return images


def area_under_curve(clean: float, steps: list[float]) -> float:
    """100 · trapezoid of accuracy (0..1) over the fraction removed, from 0 to 0.9."""
    return 100 * 0.1 * (sum([clean, *steps]) - (clean + steps[-1]) / 2)


class PerturbationCounter:
    """Explains every image, perturbs it by its map, and asks the model again."""

    SCHEMA = IMAGE_COUNTS

    def __init__(self, config: EvaluationConfig, classes: ClassNames) -> None:
        """Load the model; see `load` for what may go wrong."""
        self._model = load(config)
        self._explainer = self._model.explainer()
        self._head = self._model.head(classes.ids, classes.names)
        read = ShardReader.of(config, classes.target, self._model.fit)
        self._batches = Batches(read, config.engine.batch_size, "without one class")

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Count every image of the shard that has one known class."""
        counted = Counted()
        for batch in self._batches(shard, counted, on_images):
            with self._model.lock, counted.clock.measure("model"):
                counted.rows += [self._row(sample, counted) for sample in batch]
            counted.prompts += len(batch)
            counted.masks += len(batch)
        return counted

    def _row(self, sample: Sample[int], counted: Counted) -> dict[str, Any]:
        target = sample.wanted
        (predicted,) = self._predictions(sample.pixels[None], counted)
        # One map where both are the same class: a batch of another size may differ in last bits.
        maps = self._maps(sample, sorted({predicted, target}), counted)
        row: dict[str, Any] = {"image": sample.key, "target": target, "predicted": predicted}
        for kind, name in (("predicted", predicted), ("target", target)):
            for sign in SIGNS:
                images = perturbed(sample.pixels, removal_order(maps[name], sign))
                answers = self._predictions(images, counted)
                row[f"{sign}_{kind}"] = [answer == target for answer in answers]
        return row

    def _maps(
        self, sample: Sample[int], classes: list[int], counted: Counted
    ) -> Mapping[int, Float[Tensor, "h w"]]:
        """The heatmap of each class, at the size of the model's input."""
        query = Query(sample.pixels, self._head.rows[classes])
        (explanation,) = self._model.explain(self._explainer, [query])
        counted.degraded |= explanation.degraded
        size = (self._model.size, self._model.size)
        heat = heatmaps(self._explainer, explanation.raw, size).cpu()
        return dict(zip(classes, heat, strict=True))

    def _predictions(
        self, pixels: UInt8[Tensor, "batch 3 height width"], counted: Counted
    ) -> list[int]:
        """The class of every image, as the model sees it."""

        def choose(images: Sequence[Tensor]) -> list[int]:
            return self._head.choose(self._model.embed(self._model.images(torch.stack([*images]))))

        chosen = in_halves(list(pixels), choose, halves, self._model.device)
        counted.degraded |= any(degraded for _, _, degraded in chosen)
        return [name for _, name, _ in chosen]


def perturbation_scores(table: pa.Table) -> dict[str, Any]:
    """Accuracies, 0..1, and areas, 0..90, from the counts of all images."""
    target, predicted = table["target"].to_numpy(), table["predicted"].to_numpy()
    clean = float((target == predicted).mean())
    curves: dict[str, list[float]] = {}
    for curve in CURVES:
        answers = table[curve].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        curves[curve] = answers.reshape(-1, len(STEPS)).mean(0, dtype=np.float64).tolist()
    return {
        "accuracy": clean,
        "curves": curves,
        "auc": {curve: area_under_curve(clean, values) for curve, values in curves.items()},
    }
