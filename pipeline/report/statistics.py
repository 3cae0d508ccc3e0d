"""What is counted of a run, shard after shard: nothing here grows with the number of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inputs.look_ahead import map_ahead
from pipeline.outputs.predictions import Predictions, ShardMasks
from pipeline.outputs.selection import UNNAMED
from pipeline.report.bins import AREA, HEAT, MASKS, RAW_MAX, SCORE, Bins

IMAGES = ("sample_index", "key", "status", "reason", "detail", "masks", "without_mask")
ANNOTATIONS = (
    *("sample_index", "prompt_index", "category", "score", "raw_max"),
    *("heat_mean", "area", "height", "width"),
)
EXAMPLES = 3
"""Rejected samples that are named for each reason."""
READERS, AHEAD = 4, 4
"""Shards read at once, and before they are wanted."""


@dataclass(frozen=True)
class Classes:
    """The classes that have a row of their own; all others share the last row.

    Attributes:
        names: of those with a row of their own.
        others: how many classes share the last row.
    """

    names: tuple[str, ...]
    others: int = 0

    @property
    def rows(self) -> int:
        """One for each name, and the last."""
        return len(self.names) + 1

    def codes(self, table: pa.Table) -> np.ndarray:
        """The row of every mask, from 0."""
        found = pc.index_in(table["category"].fill_null(UNNAMED), pa.array(self.names, pa.string()))
        codes: np.ndarray = found.fill_null(len(self.names)).to_numpy().astype(np.int64)
        return codes

    @classmethod
    def of(cls, predictions: Predictions, most: int) -> Classes:
        """All classes of a run, or those with the most masks, which takes a reading of its own."""
        known = sorted({*predictions.categories.values(), UNNAMED})
        if len(known) <= most:
            return cls(tuple(known))
        masks = Counter[str]()
        for shard in read_ahead(predictions, [], ["category"]):
            named = shard.annotations["category"].fill_null(UNNAMED)
            for entry in named.value_counts().to_pylist():
                masks[entry["values"]] += entry["counts"]
        ordered = sorted(masks, key=lambda name: (-masks[name], name))
        return cls(tuple(ordered[:most]), others=len(ordered[most:]))


class Statistics:
    """Counts over the shards that were added; the first axis of arrays is the class.

    Attributes:
        classes: what the rows stand for.
        masks: of each class.
        images: with a mask of each class.
        score_sum: of the scores of each class; those that are no number are left out.
        area_sum: of the parts of the image.
        score: masks of each class by score.
        area: masks of each class by part of the image.
        raw_max: masks by the maximum of their raw map.
        heat: masks by their mean heat.
        per_image: images that were not rejected by number of masks.
        best_score: images with a mask by the highest score in them.
        not_finite: masks whose score is no number.
        without_mask: prompts that have no mask, by reason.
        examples: for every reason of a rejection the first samples: shard, key, detail.
    """

    def __init__(self, classes: Classes) -> None:
        rows = classes.rows
        self.classes = classes
        self.masks, self.images = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.score_sum, self.area_sum = np.zeros(rows), np.zeros(rows)
        self.score = np.zeros((rows, len(SCORE)), np.int64)
        self.area = np.zeros((rows, len(AREA)), np.int64)
        self.raw_max, self.heat = np.zeros(len(RAW_MAX), np.int64), np.zeros(len(HEAT), np.int64)
        self.per_image = np.zeros(len(MASKS), np.int64)
        self.best_score = np.zeros(len(SCORE), np.int64)
        self.not_finite = 0
        self.without_mask = Counter[str]()
        self.examples: dict[str, list[dict[str, str]]] = {}

    def add(self, shard: ShardMasks) -> None:
        """Count a shard, read with `IMAGES` and `ANNOTATIONS`."""
        self._add_images(shard)
        table, rows = shard.annotations, self.classes.rows
        if not len(table):
            return
        codes = self.classes.codes(table)
        score, sample = table["score"].to_numpy(), table["sample_index"].to_numpy()
        finite = np.isfinite(score)
        self.not_finite += int((~finite).sum())
        self.masks += np.bincount(codes, minlength=rows)
        pairs = np.unique(codes << 32 | sample) >> 32
        self.images += np.bincount(pairs, minlength=rows)
        self.score_sum += np.bincount(codes[finite], score[finite], minlength=rows)
        self.score += _by_class(codes[finite], SCORE, score[finite], rows)
        area = covered(table)
        self.area_sum += np.bincount(codes, area, minlength=rows)
        self.area += _by_class(codes, AREA, area, rows)
        self.raw_max += RAW_MAX.count(table["raw_max"].to_numpy())
        self.heat += HEAT.count(table["heat_mean"].to_numpy())
        starts = np.flatnonzero(np.diff(sample[finite], prepend=-1))
        if len(starts):
            self.best_score += SCORE.count(np.maximum.reduceat(score[finite], starts))

    def _add_images(self, shard: ShardMasks) -> None:
        table = shard.images
        rejected = pc.equal(table["status"], "rejected")
        self.per_image += MASKS.count(table.filter(pc.invert(rejected))["masks"].to_numpy())
        for row in table.filter(rejected).select(["key", "reason", "detail"]).to_pylist():
            found = self.examples.setdefault(row["reason"], [])
            if len(found) < EXAMPLES:
                found.append(
                    {
                        "shard": shard.commit.shard,
                        "key": row["key"],
                        "detail": row["detail"] or "",
                    }
                )
        reasons = pc.list_flatten(table["without_mask"].combine_chunks())
        for row in reasons.to_pylist():
            self.without_mask[row["reason"]] += row["count"]


def read_ahead(
    predictions: Predictions, images: Sequence[str], annotations: Sequence[str]
) -> Iterator[ShardMasks]:
    """The tables of every shard in their order, some of them before they are wanted."""

    def read(commit: Any) -> ShardMasks:
        return predictions.read(commit, images, annotations)

    with ThreadPoolExecutor(READERS) as pool:
        yield from map_ahead(pool, read, predictions.commits, AHEAD)


def covered(table: pa.Table) -> np.ndarray:
    """The part of its image that each mask covers."""
    pixels = table["height"].to_numpy().astype(np.float64) * table["width"].to_numpy()
    parts: np.ndarray = table["area"].to_numpy() / pixels
    return parts


def _by_class(codes: np.ndarray, bins: Bins, values: np.ndarray, rows: int) -> np.ndarray:
    flat = np.bincount(codes * len(bins) + bins.index(values), minlength=rows * len(bins))
    return flat.reshape(rows, len(bins))
