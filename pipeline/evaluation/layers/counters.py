"""Where the gradient is: mean of each layer's raw map inside the object, per image and class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float

import legrad
from pipeline.evaluation.batches import Batches
from pipeline.evaluation.columns import sorted_codes
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Counted
from pipeline.evaluation.segmentation.truth import ClassMasks, FindTruth
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import Shard
from pipeline.models.loaded import Query
from pipeline.models.loading import LoadedClip

LAYER_MEANS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("means", pa.list_(pa.float64()), nullable=False),
    ]
)
"""One row per image and class: the mean inside the mask, layer by layer."""


class GradientCounter:
    """Measures the raw map of every layer inside the masks."""

    SCHEMA = LAYER_MEANS

    def __init__(
        self,
        config: EvaluationConfig,
        per_layer_minmax: bool,
        make_truth: Callable[[], FindTruth],
    ) -> None:
        """Load truth and model; see `LoadedClip` for what may go wrong."""
        self._minmax = per_layer_minmax
        self._model = LoadedClip(config)
        depth = range(self._model.depth)
        self._layers = [self._model.explainer(layers=[layer]) for layer in depth]
        read = ShardReader.of(config, make_truth(), self._model.squash)
        self._batches = Batches(read, config.engine.batch_size, "without ground truth")

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Measure every image of the shard that has ground truth."""
        counted = Counted()
        for batch in self._batches(shard, counted, on_images):
            for sample in batch:
                counted.rows += self._rows(sample, counted)
                counted.prompts += len(sample.wanted.names)
                counted.masks += len(sample.wanted.names)
        return counted

    def _rows(self, sample: Sample[ClassMasks], counted: Counted) -> list[dict[str, Any]]:
        names, truth = sample.wanted.names, sample.wanted
        with self._model.lock, counted.clock.measure("model"):
            query = Query(sample.pixels, self._model.text([name.lower() for name in names]))
            explanations = [self._model.explain(layer, [query])[0] for layer in self._layers]
        counted.degraded |= any(explanation.degraded for explanation in explanations)
        maps = torch.stack([explanation.raw for explanation in explanations])
        if self._minmax:
            maps = torch.stack([legrad.minmax(of_layer) for of_layer in maps])
        maps = maps.cpu()
        rows = []
        for position, name in enumerate(names):
            inside = torch.from_numpy(truth.masks[position] & ~truth.ignored)
            if inside.any():
                upsampled = _upsampled(maps[:, position], (inside.shape[0], inside.shape[1]))
                means = upsampled[:, inside].mean(1, dtype=torch.float64).tolist()
                rows.append({"image": sample.key, "name": name, "means": means})
        return rows


def _upsampled(
    maps: Float[torch.Tensor, "layer rows columns"], size: tuple[int, int]
) -> Float[torch.Tensor, "layer height width"]:
    """At image size, without any normalisation: the magnitude is what is measured."""
    return F.interpolate(maps[None].float(), size, mode="bilinear", align_corners=False)[0]


def gradient_distribution(table: pa.Table) -> dict[str, Any]:
    """Mean over the images of a class, then over classes, then min-max over the layers."""
    names, codes = sorted_codes(table["name"])
    means = np.array(table["means"].to_pylist(), dtype=np.float64)
    per_class = {
        name: spread(means[codes == code].mean(0)).tolist() for code, name in enumerate(names)
    }
    overall = np.mean([means[codes == code].mean(0) for code in range(len(names))], axis=0)
    return {"raw": overall.tolist(), "layers": spread(overall).tolist(), "classes": per_class}


def spread(values: Float[np.ndarray, " layer"]) -> Float[np.ndarray, " layer"]:
    """Min-max over the layers; zeros for a flat curve."""
    span = values.max() - values.min()
    result: np.ndarray = (values - values.min()) / span if span > 0 else 0 * values
    return result
