"""The labelled sample: scores of pairs whose truth is known, and how their heat fits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from legrad import HeatOrder
from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.overlaps import THRESHOLDS, Overlaps, overlap
from pipeline.calibration.truth import Known, PointTruth, Truth
from pipeline.errors import ConfigError
from pipeline.evaluation.points.counters import PredictionCounter
from pipeline.evaluation.points.counts import THRESHOLDS as POINT_THRESHOLDS
from pipeline.evaluation.predictions import predicted_shards
from pipeline.evaluation.segmentation.truth import ClassMasks
from pipeline.outputs.masks import stored_heatmap
from pipeline.outputs.predictions import Predictions, ShardMasks
from pipeline.outputs.schema import heat_order

Row = dict[str, Any]


@dataclass(frozen=True)
class LabelledSample:
    """Pairs of image and class that a run has scored, in images whose contents are known.

    Attributes:
        names: of all classes that the run looked for, sorted; `label` counts them.
        images: with a known truth.
        image: of each pair, from 0.
        label: class of each pair, from 0.
        score: of each pair.
        present: whether it is there.
        missed: of each image, classes that are there and were not looked for.
        unknown: images that nothing is known of.
        overlaps: of heat with the truth; None where no thresholds can be chosen.
        why_none: why that is.
    """

    names: list[str]
    images: int
    image: Int64[np.ndarray, " pair"]
    label: Int64[np.ndarray, " pair"]
    score: Float64[np.ndarray, " pair"]
    present: Bool[np.ndarray, " pair"]
    missed: Int64[np.ndarray, " image"]
    unknown: int
    overlaps: Overlaps | None
    why_none: str


def read_sample(config: CalibrateConfig, predictions: Predictions, truth: Truth) -> LabelledSample:
    """Read every shard of a run.

    Raises:
        ConfigError: the run has no classes or nothing of it has a known truth; all of its pairs are
            there, or none; masks and truth differ in size.
    """
    if predictions.identity["prompts"]["source"] == "caption":
        raise ConfigError(f"{predictions}: is of captions, which are no classes to calibrate")
    names = sorted(set(predictions.categories.values()))
    codes = {name.lower(): code for code, name in enumerate(names)}
    reader = _Reader(codes, predictions.identity)
    shards = {}
    if isinstance(truth, PointTruth):
        points = truth.pairs
        reader.take_points()
        if not reader.why_none:
            reader.count = PredictionCounter(config.predictions, lambda: points, sweep=True)
            reader.prompts = {label.id: label.prompt for label in points.labels}
            shards = {shard.name: shard for shard in predicted_shards(config.predictions)}
    for commit in predictions.commits:
        numbers = reader.add(predictions.read(commit), truth)
        if commit.shard in shards:
            reader.add_points(shards[commit.shard], numbers)
    return reader.sample(names, str(predictions))


class _Reader:
    """Pairs as they come, shard by shard."""

    def __init__(self, codes: Mapping[str, int], identity: Mapping[str, Any]) -> None:
        self.codes, self.images, self.unknown = codes, 0, 0
        self.pairs: list[tuple[int, int, float, bool]] = []
        self.missed: list[int] = []
        self.spots: list[tuple[int, int]] = []
        self.counts: list[np.ndarray] = []
        self.count: PredictionCounter | None = None
        self.prompts: dict[str, str] = {}
        self._claimed: dict[str, str] = {}
        mask = identity["mask"]
        self._winner = mask.get("overlap") == "winner"
        self.why_none = ""
        if not mask["heat"]:
            self.why_none = "the run was made with --mask.heat false"
        elif mask["rule"] != "fixed":
            self.why_none = f"the run was made with --mask.rule {mask['rule']}"
        elif mask.get("refine", "none") != "none":
            self.why_none = "the run's maps were refined, and their heat does not tell the masks"

    def add(self, shard: ShardMasks, truth: Truth) -> dict[str, int]:
        """Take a shard; returns the number of every image in it that something is known of."""
        order, rows = heat_order(shard.annotations), _by_sample(shard.annotations.to_pylist())
        numbers: dict[str, int] = {}
        for image in shard.images.to_pylist():
            if image["status"] == "rejected":
                continue
            known = truth(shard.commit.shard, image["key"])
            if known is None:
                self.unknown += 1
                continue
            self._claim(known.image, f"{image['key']} of {shard.commit.shard}")
            numbers[known.image or image["key"]] = self.images
            found = rows.get(image["sample_index"], [])
            self._add_image([*found, *(image.get("absent") or [])], known, order)
            self.images += 1
        return numbers

    def _claim(self, image: str, sample: str) -> None:
        """Take down which sample an image of the truth is.

        Raises:
            ConfigError: it is another one, too.
        """
        if image and (first := self._claimed.setdefault(image, sample)) != sample:
            raise ConfigError(
                f"the samples {first} and {sample} are both {image} in the truth: nothing tells "
                "them apart"
            )

    def take_points(self) -> None:
        """Note that places are those of points: each is looked up in the map of its class alone."""
        if self._winner:
            self.why_none = self.why_none or (
                "the run was made with --mask.overlap winner, and points are of one class each: "
                "they do not tell what its map loses to others; --coco or --masks do"
            )

    def add_points(self, shard: Any, numbers: Mapping[str, int]) -> None:
        """Count the points of a shard, whose images have these numbers."""
        assert self.count is not None
        for row in self.count(shard, lambda images: None).rows:
            code = self.codes.get(self.prompts[row["label"]])
            if row["tp_at"] is not None and code is not None and row["image"] in numbers:
                self.spots.append((numbers[row["image"]], code))
                tp, fp = np.array(row["tp_at"]), np.array(row["fp_at"])
                self.counts.append(np.stack([tp, fp, row["yes"] - tp]))

    def sample(self, names: list[str], run: str) -> LabelledSample:
        """All of them, as columns."""
        if not self.images:
            raise ConfigError(f"{run}: nothing is known of any of its {self.unknown:,} images")
        image, label, score, present = (
            (np.array(column) for column in zip(*self.pairs, strict=True))
            if self.pairs
            else [np.zeros(0)] * 4
        )
        finite = np.isfinite(score)
        there = int(present[finite].sum())
        if not 0 < there < finite.sum():
            kind = "there" if there else "absent"
            raise ConfigError(
                f"{run}: of {int(finite.sum()):,} pairs, all are {kind}; annotate with "
                "--prompts.source vocabulary --prompts.presence -1 and --prompts.top_k for all "
                "classes, and see that the truth has the names of the class file"
            )
        return LabelledSample(
            names,
            self.images,
            image[finite].astype(np.int64),
            label[finite].astype(np.int64),
            score[finite].astype(np.float64),
            present[finite].astype(bool),
            np.array(self.missed, np.int64),
            self.unknown,
            self._overlaps(),
            self.why_none or ("" if self.spots else "the truth does not say where things are"),
        )

    def _overlaps(self) -> Overlaps | None:
        if not self.spots or self.why_none:
            return None
        image, label = (np.array(column, np.int64) for column in zip(*self.spots, strict=True))
        tp, fp, fn = np.stack(self.counts, axis=1).astype(np.int64)
        points = self.count is not None
        tried = np.array(POINT_THRESHOLDS, np.float32) if points else THRESHOLDS
        return Overlaps(tried, image, label, tp, fp, fn, by_pair=not points)

    def _add_image(self, found: list[Row], known: Known, order: HeatOrder) -> None:
        best: dict[int, Row] = {}
        for row in found:
            code = self.codes.get((row["category"] or "").lower())
            if code is not None and (code not in best or row["score"] > best[code]["score"]):
                best[code] = row
        there = {self.codes[name] for name in known.names if name in self.codes}
        self.pairs += [
            (self.images, code, row["score"], code in there) for code, row in sorted(best.items())
        ]
        self.missed.append(len(there - best.keys()))
        if known.masks is not None and not self.why_none:
            mapped = {
                code: best[code] for code in sorted(there & best.keys()) if "heat" in best[code]
            }
            for code, counts in self._of_masks(mapped, known.masks, order):
                self.spots.append((self.images, code))
                self.counts.append(counts)

    def _of_masks(
        self, rows: Mapping[int, Row], truth: ClassMasks, order: HeatOrder
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Pixels of every class that is there and has a map, by threshold."""
        if not rows:
            return
        heats = np.stack([stored_heatmap(row, order) for row in rows.values()])
        if heats.shape[1:] != truth.ignored.shape:
            raise ConfigError(
                f"{next(iter(rows.values()))['key']}: a mask of {heats.shape[1:]} for ground truth "
                f"of {truth.ignored.shape}; calibrate on the images that the truth is of"
            )
        if self._winner:
            heats *= heats.argmax(0) == np.arange(len(heats))[:, None, None]
        place = {name.lower(): position for position, name in enumerate(truth.names)}
        by_code = {
            self.codes[name]: position for name, position in place.items() if name in self.codes
        }
        for code, heat in zip(rows, heats, strict=True):
            yield code, overlap(heat, truth.masks[by_code[code]], ~truth.ignored)


def _by_sample(rows: list[Row]) -> dict[int, list[Row]]:
    by_sample: dict[int, list[Row]] = {}
    for row in rows:
        by_sample.setdefault(row["sample_index"], []).append(row)
    return by_sample
