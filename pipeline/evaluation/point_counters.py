"""Counting points on masks: those that a run has written, or those of a method on a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float32

from pipeline import storage
from pipeline.evaluation.batches import Batches, Case
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.model import EvaluatedModel, heatmaps
from pipeline.evaluation.pairs import LabelledPairs, PairPoints
from pipeline.evaluation.points import pixels_of
from pipeline.evaluation.predictions import (
    image_id_of,
    predicted_shards,
    read_rows,
    stored_heat,
)
from pipeline.evaluation.running import Counted
from pipeline.evaluation.runs import pixels_set
from pipeline.masks import decode
from pipeline.shards import Shard
from pipeline.tars import RawSample

Row = dict[str, Any]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Of the sweep over mask thresholds."""
PAIRS_FILE = "pairs.parquet"
PAIR_COUNTS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("yes", pa.int32(), nullable=False),
        pa.field("no", pa.int32(), nullable=False),
        pa.field("tp", pa.int32(), nullable=False),
        pa.field("fp", pa.int32(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("tp_at", pa.list_(pa.int32())),
        pa.field("fp_at", pa.list_(pa.int32())),
        pa.field("rebuilt_intersection", pa.int64()),
        pa.field("rebuilt_union", pa.int64()),
    ]
)
"""One row per pair of image and class: its points, those that the mask covers (also at each of
`THRESHOLDS`, where there is heat), the mask's score (null: there is no mask), and the overlap of
the mask with the one that its heat gives back."""


@dataclass(frozen=True)
class MakePredictionCounter:
    """Makes a `PredictionCounter` in the process that counts."""

    predictions: str
    output: str
    sweep: bool

    def __call__(self) -> PredictionCounter:
        """Load the pairs."""
        return PredictionCounter(self.predictions, _load_pairs(self.output), self.sweep)


class PredictionCounter:
    """Looks points up in the masks of an annotation run."""

    SCHEMA = PAIR_COUNTS

    def __init__(self, predictions: str, pairs: LabelledPairs, sweep: bool) -> None:
        """Score the run in `predictions` by `pairs`; with `sweep`, also at other thresholds."""
        self._predictions, self._pairs, self._sweep = predictions, pairs, sweep

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Count the points of every image of the shard."""
        counted = Counted()
        images = read_rows(
            self._predictions, f"images/{shard.name}.parquet", ["key", "status", "reason"]
        )
        pairs = self._pairs.of_images(image_id_of(row["key"]) for row in images)
        masks = self._masks(shard, pairs)
        for row in images:
            image = image_id_of(row["key"])
            if row["status"] == "rejected":
                counted.rejects[row["reason"]] += 1
            # A rejected image has no masks: its points count, like those of any other.
            counted.statuses["scored" if image in pairs else "without points"] += 1
            for points in pairs.get(image, []):
                mask = masks.get((image, points.number))
                counted.rows.append(_of_mask(image, points, mask, self._sweep))
                counted.prompts += 1
                counted.masks += mask is not None
        on_images(len(images))
        return counted

    def _masks(
        self, shard: Shard, pairs: Mapping[str, list[PairPoints]]
    ) -> dict[tuple[str, int], Row]:
        """The row of the best mask for every pair that has one."""
        columns = ["key", "category", "score", "segmentation", "threshold"]
        columns += ["height", "width", "heat", "heat_shape"] if self._sweep else []
        masks: dict[tuple[str, int], Row] = {}
        for row in read_rows(self._predictions, f"annotations/{shard.name}.parquet", columns):
            image, name = image_id_of(row["key"]), (row["category"] or "").lower()
            for points in pairs.get(image, []):
                rank = _match(points, name)
                best = masks.get((image, points.number))
                if rank and (best is None or (rank, row["score"]) > best["rank"]):
                    masks[image, points.number] = row | {"rank": (rank, row["score"])}
        return masks


@dataclass(frozen=True)
class MakeMapCounter:
    """Makes a `MapCounter` in the process that counts."""

    config: EvaluationConfig
    output: str

    def __call__(self) -> MapCounter:
        """Load the pairs and the model; see `EvaluatedModel` for what may go wrong."""
        return MapCounter(self.config, _load_pairs(self.output))


class MapCounter:
    """Looks points up in the heatmaps of a method, at the size of the model's input."""

    SCHEMA = PAIR_COUNTS

    def __init__(self, config: EvaluationConfig, pairs: LabelledPairs) -> None:
        """Load the model; see `EvaluatedModel` for what may go wrong."""
        self._pairs = pairs
        self._model = EvaluatedModel(config)
        self._explainer = self._model.explainer()
        self._batches = Batches(config, self._truth, self._model.squash, "without points")

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Explain the classes of every image of the shard that have points."""
        counted = Counted()
        for batch in self._batches(shard, counted, on_images):
            self._count(batch, counted)
        return counted

    def _truth(self, raw: RawSample) -> list[PairPoints] | None:
        image = image_id_of(raw.key)
        return self._pairs.of_images([image]).get(image)

    def _count(self, batch: list[Case[list[PairPoints]]], counted: Counted) -> None:
        asked = [(case, points) for case in batch for points in case.truth]
        owner = [i for i, case in enumerate(batch) for _ in case.truth]
        with self._model.turn:
            images = self._model.images(torch.stack([case.pixels for case in batch]))
            text = self._model.text([points.label.prompt for _, points in asked])
            index = torch.tensor(owner, device=self._model.device)
            embedding, raw = self._explainer.explain(images, text.to(images.device), index)
            scores = (embedding[index] * text).sum(-1).tolist()
        side = self._model.size
        for (case, points), score, grid in zip(asked, scores, raw, strict=True):
            heat = heatmaps(self._explainer, grid[None], (side, side))[0].cpu().numpy()
            at_points = heat[pixels_of(points.x, points.y, side, side)]
            row = _counts(image_id_of(case.key), points, at_points > np.float32(0.5), score)
            counted.rows.append(row | _swept(points, at_points))
            counted.prompts += 1
            counted.masks += 1


def _of_mask(image: str, points: PairPoints, mask: Row | None, sweep: bool) -> Row:
    """The counts of a pair on a written mask; without one, nothing is predicted anywhere."""
    if mask is None:
        return _counts(image, points, np.zeros(len(points.x), dtype=bool), None)
    height, width = mask["segmentation"]["size"]
    rows, columns = pixels_of(points.x, points.y, height, width)
    inside = pixels_set(mask["segmentation"], rows, columns)
    counts = _counts(image, points, inside, mask["score"])
    if not sweep or mask["heat"] is None:
        return counts
    heat = stored_heat(mask)
    rebuilt, written = heat > np.float32(mask["threshold"]), decode(mask["segmentation"])
    overlap = {
        "rebuilt_intersection": int((rebuilt & written).sum()),
        "rebuilt_union": int((rebuilt | written).sum()),
    }
    return counts | _swept(points, heat[rows, columns]) | overlap


def _counts(
    image: str, points: PairPoints, inside: Bool[np.ndarray, " point"], score: float | None
) -> Row:
    yes = int(points.yes.sum())
    return {
        "image": image,
        "label": points.label.id,
        "yes": yes,
        "no": len(points.yes) - yes,
        "tp": int((inside & points.yes).sum()),
        "fp": int((inside & ~points.yes).sum()),
        "score": score,
        "tp_at": None,
        "fp_at": None,
        "rebuilt_intersection": None,
        "rebuilt_union": None,
    }


def _swept(points: PairPoints, heat: Float32[np.ndarray, " point"]) -> Row:
    """True and false positives at each of `THRESHOLDS`."""
    inside = heat > np.array(THRESHOLDS, dtype=np.float32)[:, None]
    return {
        "tp_at": (inside & points.yes).sum(1).tolist(),
        "fp_at": (inside & ~points.yes).sum(1).tolist(),
    }


def _match(points: PairPoints, name: str) -> int:
    """How well a mask's class fits: 2 by display name, 1 by the row's own name, 0 not at all."""
    if not name:
        return 0
    return 2 if name == points.label.prompt else int(name == points.label.alias.lower())


def _load_pairs(output: str) -> LabelledPairs:
    return LabelledPairs.from_parquet(storage.read_bytes(storage.join(output, PAIRS_FILE)))


def count_predictions(predictions: str, pairs: LabelledPairs) -> pa.Table:
    """The counts of a whole run, in this process."""
    count = PredictionCounter(predictions, pairs, sweep=False)
    shards = predicted_shards(predictions)
    rows = [row for shard in shards for row in count(shard, lambda images: None).rows]
    return pa.Table.from_pylist(rows, schema=PAIR_COUNTS)


def repeated_images(images: Iterable[str], labels: Iterable[str]) -> list[str]:
    """Images that more than one sample claims to be: their points would count twice."""
    counts = Counter(zip(images, labels, strict=True))
    return sorted({image for (image, _), n in counts.items() if n > 1})
