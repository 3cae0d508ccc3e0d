"""Counting points on masks: those that a run has written, or those of a method on a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.errors import DUPLICATE_KEY, Reject
from pipeline.evaluation.batches import Batches
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Counted
from pipeline.evaluation.matching import AMBIGUOUS, Matcher
from pipeline.evaluation.points.counts import PAIR_COUNTS, Row, pair_counts, swept
from pipeline.evaluation.points.definition import pixels_of
from pipeline.evaluation.points.pairs import LabelledPairs, PairPoints
from pipeline.evaluation.points.pictures import keep_pictures, picture
from pipeline.evaluation.predictions import predicted_shards
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample
from pipeline.models.loaded import Query, heatmaps
from pipeline.models.loading import LoadedClip
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import decode, made_of_heat, stored_heatmap
from pipeline.outputs.run_lengths import pixels_set
from pipeline.outputs.schema import heat_order


class ImagePoints(NamedTuple):
    """An image as the point file calls it, and its pairs."""

    image: str
    pairs: list[PairPoints]


class PredictionCounter:
    """Looks points up in the masks of an annotation run."""

    SCHEMA = PAIR_COUNTS

    def __init__(
        self,
        predictions: str,
        make_pairs: Callable[[], LabelledPairs],
        sweep: bool = False,
        gallery: bool = False,
        limit: int | None = None,
    ) -> None:
        """Score the run in `predictions` by points.

        Args:
            predictions: output of the run.
            make_pairs: loads the points.
            sweep: whether to score other thresholds too.
            gallery: whether to keep the masks of a few images, to draw them.
            limit: take only so many samples of every shard.
        """
        self._predictions, self._pairs = Ledger(predictions), make_pairs()
        identity = self._predictions.identity()
        # Of other masks, the sweep would be that of the maps that they were made of.
        self._sweep = sweep and (identity is None or made_of_heat(identity))
        self._gallery, self._limit = gallery, limit
        self._match = Matcher(self._pairs.images)

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Count the points of every image of the shard."""
        counted = Counted()
        columns = ["key", "status", "reason"]
        table = self._predictions.read("images", shard.name, columns)
        images = table.to_pylist()[: self._limit]
        found: dict[str, str | None] = {}
        for row in images:
            with suppress(Reject):  # which is counted below
                found[row["key"]] = self._match(row["key"])
        pairs = self._pairs.of_images(image for image in found.values() if image)
        masks = self._masks(shard, pairs, found)
        for row in images:
            if row["key"] not in found:
                counted.reject(AMBIGUOUS)
                continue
            image = found[row["key"]]
            if row["status"] == "rejected":
                counted.rejects[row["reason"]] += 1
                if row["reason"] == DUPLICATE_KEY:  # the first of that key has the points
                    counted.statuses["rejected"] += 1
                    continue
            # A rejected image has no masks: its points count, like those of any other.
            counted.statuses["scored" if image in pairs else "without points"] += 1
            if image is None:
                continue
            for points in pairs.get(image, []):
                mask = masks.get((image, points.number))
                row = _of_mask(image, points, mask, self._sweep)
                if mask and self._gallery:
                    row["picture"] = {"shard": shard.name, "segmentation": mask["segmentation"]}
                counted.rows.append(row)
                counted.prompts += 1
                counted.masks += mask is not None
        keep_pictures(counted.rows)
        on_images(len(images))
        return counted

    def _masks(
        self,
        shard: Shard,
        pairs: Mapping[str, list[PairPoints]],
        found: Mapping[str, str | None],
    ) -> dict[tuple[str, int], Row]:
        """The row of the best mask for every pair that has one; `found` has the image of a key."""
        columns = ["key", "category", "score", "segmentation", "threshold"]
        columns += ["height", "width", "heat", "heat_shape", "raw_max"] if self._sweep else []
        masks: dict[tuple[str, int], Row] = {}
        table = self._predictions.read("annotations", shard.name, columns, optional=["raw_min"])
        order = heat_order(table)
        for row in table.to_pylist():
            image, name = found.get(row["key"]) or "", (row["category"] or "").lower()
            for points in pairs.get(image, []):
                rank = _match(points, name)
                best = masks.get((image, points.number))
                if rank and (best is None or (rank, row["score"]) > best["rank"]):
                    own = {"rank": (rank, row["score"]), "order": order}
                    masks[image, points.number] = row | own
        return masks


class MapCounter:
    """Looks points up in the heatmaps of a method, at the size of the model's input."""

    SCHEMA = PAIR_COUNTS

    def __init__(
        self, config: EvaluationConfig, make_pairs: Callable[[], LabelledPairs], gallery: bool
    ) -> None:
        """Load points and model; see `LoadedClip` for what may go wrong.

        Args:
            config: of the run.
            make_pairs: loads the points.
            gallery: whether to keep the masks of a few images, to draw them.
        """
        self._pairs, self._gallery = make_pairs(), gallery
        self._match = Matcher(self._pairs.images)
        self._model = LoadedClip(config)
        self._explainer = self._model.explainer()
        read = ShardReader.of(config, self._points_of, self._model.squash)
        self._batches = Batches(read, config.engine.batch_size, "without points")

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Explain the classes of every image of the shard that have points."""
        counted = Counted()
        for batch in self._batches(shard, counted, on_images):
            self._count(shard.name, batch, counted)
        keep_pictures(counted.rows)
        return counted

    def _points_of(self, raw: RawSample) -> ImagePoints | None:
        image = self._match(raw.key)
        if image is None:
            return None
        return ImagePoints(image, self._pairs.of_images([image])[image])

    def _count(self, shard: str, batch: list[Sample[ImagePoints]], counted: Counted) -> None:
        with self._model.lock, counted.clock.measure("model"):
            queries = [
                Query(s.pixels, self._model.text([p.label.prompt for p in s.wanted.pairs]))
                for s in batch
            ]
            explanations = self._model.explain(self._explainer, queries)
        side = self._model.size
        for sample, explanation in zip(batch, explanations, strict=True):
            counted.degraded |= explanation.degraded
            scores = explanation.scores.tolist()
            wanted = sample.wanted
            for points, score, grid in zip(wanted.pairs, scores, explanation.raw, strict=True):
                heat = heatmaps(self._explainer, grid[None], (side, side))[0].cpu().numpy()
                mask, pixels = heat > np.float32(0.5), pixels_of(points.x, points.y, side, side)
                row = pair_counts(wanted.image, points, mask[pixels], score)
                row["picture"] = picture(shard, mask) if self._gallery else None
                counted.rows.append(row | swept(points, heat[pixels]))
                counted.prompts += 1
                counted.masks += 1


def _of_mask(image: str, points: PairPoints, mask: Row | None, sweep: bool) -> Row:
    """The counts of a pair on a written mask; without one, nothing is predicted anywhere."""
    if mask is None:
        return pair_counts(image, points, np.zeros(len(points.x), dtype=bool), None)
    height, width = mask["segmentation"]["size"]
    rows, columns = pixels_of(points.x, points.y, height, width)
    inside = pixels_set(mask["segmentation"], rows, columns)
    counts = pair_counts(image, points, inside, mask["score"])
    if not sweep or mask["heat"] is None:
        return counts
    heat = stored_heatmap(mask, mask["order"])
    rebuilt, written = heat > np.float32(mask["threshold"]), decode(mask["segmentation"])
    overlap = {
        "rebuilt_intersection": int((rebuilt & written).sum()),
        "rebuilt_union": int((rebuilt | written).sum()),
    }
    return counts | swept(points, heat[rows, columns]) | overlap


def _match(points: PairPoints, name: str) -> int:
    """How well a mask's class fits: 2 by display name, 1 by the row's own name, 0 not at all."""
    if not name:
        return 0
    return 2 if name == points.label.prompt else int(name == points.label.alias.lower())


def count_predictions(predictions: str, pairs: LabelledPairs) -> pa.Table:
    """The counts of a whole run, in this process."""
    count = PredictionCounter(predictions, lambda: pairs)
    shards = predicted_shards(predictions)
    rows = [row for shard in shards for row in count(shard, lambda images: None).rows]
    return pa.Table.from_pylist(rows, schema=PAIR_COUNTS)
