"""Counting pixels of a method's maps on images, or of the masks that a run has written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from legrad import HeatOrder
from pipeline.errors import DUPLICATE_KEY, Reject
from pipeline.evaluation.batches import Batches
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Counted
from pipeline.evaluation.segmentation.scores import REGION_COUNTS, region_rows
from pipeline.evaluation.segmentation.truth import ClassMasks, FindTruth
from pipeline.inputs.reader import Fit, ReadShard
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample
from pipeline.models.loaded import Explanation, Query, heatmaps
from pipeline.models.loading import LoadedClip
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import decode, made_of_heat, stored_heatmap
from pipeline.outputs.schema import heat_order

UNSCORED = "without ground truth"


class RegionCounter:
    """Explains the classes of every image, at the model's size, and counts pixels."""

    SCHEMA = REGION_COUNTS

    def __init__(
        self,
        config: EvaluationConfig,
        threshold: float,
        make_reader: Callable[[Fit], ReadShard[ClassMasks]],
    ) -> None:
        """Load the model; see `LoadedClip` for what may go wrong.

        Args:
            config: of the run.
            threshold: foreground is above it.
            make_reader: makes what reads images and ground truth, of what brings pixels to size.
        """
        self._threshold = threshold
        self._model = LoadedClip(config)
        self._explainer = self._model.explainer()
        read = make_reader(self._model.squash)
        self._batches = Batches(read, config.engine.batch_size, UNSCORED)

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Count every image of the shard that has ground truth."""
        counted = Counted()
        for batch in self._batches(shard, counted, on_images):
            for sample, explanation in zip(batch, self._explanations(batch, counted), strict=True):
                counted.degraded |= explanation.degraded
                size = (self._model.size, self._model.size)
                heat = heatmaps(self._explainer, explanation.raw, size).cpu().numpy()
                truth = sample.wanted.resized(self._model.size)
                fixed = heat > np.float32(self._threshold)
                counted.rows += region_rows(truth.image or sample.key, truth, heat, fixed)
                counted.prompts += len(truth.names)
                counted.masks += len(truth.names)
        return counted

    def _explanations(self, batch: list[Sample[ClassMasks]], counted: Counted) -> list[Explanation]:
        """The maps of all classes of every image."""
        with self._model.lock, counted.clock.measure("model"):
            queries = [
                Query(s.pixels, self._model.text([name.lower() for name in s.wanted.names]))
                for s in batch
            ]
            return self._model.explain(self._explainer, queries)


class WrittenCounter:
    """Counts the pixels of the masks that an annotation run has written, at their own size."""

    SCHEMA = REGION_COUNTS

    def __init__(
        self, predictions: str, make_truth: Callable[[], FindTruth], limit: int | None
    ) -> None:
        """Score the run in `predictions`, or only the first `limit` samples of every shard."""
        self._predictions, self._truth, self._limit = Ledger(predictions), make_truth(), limit
        identity = self._predictions.identity()
        self._has_heat = identity is None or made_of_heat(identity)

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Count every image of the shard that has ground truth."""
        counted = Counted()
        table = self._predictions.read("annotations", shard.name)
        order = heat_order(table)
        by_key: dict[str, dict[str, dict[str, Any]]] = {}
        for row in table.to_pylist():
            by_key.setdefault(row["key"], {}).setdefault((row["category"] or "").lower(), row)
        seen = self._predictions.read("images", shard.name, ["key", "reason"])
        images = seen.to_pylist()[: self._limit]
        for image in images:
            if image["reason"] == DUPLICATE_KEY:  # the truth is that of the first of that key
                counted.reject(DUPLICATE_KEY)
                continue
            try:
                truth = self._truth(RawSample(0, image["key"], {}))
            except Reject as reject:
                counted.reject(reject.reason)
                continue
            if truth is None:
                counted.statuses[UNSCORED] += 1
                continue
            found = by_key.get(image["key"], {})
            if not self._has_heat:  # or what it scores would not be these masks
                found = {name: row | {"heat": None} for name, row in found.items()}
            try:
                rows = _written_rows(truth.image or image["key"], truth, found, order)
            except Reject as reject:
                counted.reject(reject.reason)
                continue
            counted.rows += rows
            counted.statuses["scored"] += 1
            counted.prompts += len(truth.names)
            counted.masks += sum(name.lower() in found for name in truth.names)
        on_images(len(images))
        return counted


def _written_rows(
    image: str, truth: ClassMasks, found: dict[str, dict[str, Any]], order: HeatOrder
) -> list[dict[str, Any]]:
    """The counts of an image; a class without a mask was found nowhere.

    Raises:
        Reject: `other_size`: masks and ground truth are of images of different size.
    """
    shape = truth.ignored.shape
    fixed = np.zeros((len(truth.names), *shape), dtype=bool)
    heat: np.ndarray | None = np.zeros(fixed.shape, dtype=np.float32)
    for position, name in enumerate(truth.names):
        row = found.get(name.lower())
        if row is None:
            continue
        mask = decode(row["segmentation"])
        if mask.shape != shape:
            raise Reject("other_size", f"{image}: a mask of {mask.shape} for truth of {shape}")
        fixed[position] = mask
        if row["heat"] is None:
            heat = None
        if heat is not None:
            heat[position] = stored_heatmap(row, order)
    return region_rows(image, truth, heat, fixed)
