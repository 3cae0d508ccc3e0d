"""`evaluate.py segmentation`: maps or masks scored by ground-truth masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.config.unused import refuse_given
from pipeline.errors import ConfigError
from pipeline.evaluation import paper, report
from pipeline.evaluation.columns import repeated_images
from pipeline.evaluation.config import ScoringConfig
from pipeline.evaluation.counting import MakeCounter, Merged, count_shards
from pipeline.evaluation.predictions import scored_shards
from pipeline.evaluation.segmentation.counters import RegionCounter, WrittenCounter
from pipeline.evaluation.segmentation.mat import MatReader, mat_shards, read_wnids
from pipeline.evaluation.segmentation.scores import RULES, segmentation_scores, unpredicted
from pipeline.evaluation.segmentation.truth import (
    ClassMasks,
    FindTruth,
    truth_of,
)
from pipeline.inputs.reader import Fit, ReadShard, ShardReader


@dataclass(frozen=True)
class SegmentationConfig(ScoringConfig):
    """Scoring by masks."""

    mat: str = ""
    """ImageNet-Segmentation, gtsegs_ijcv.mat: the images too, so that --input is not needed."""
    wnids: str = ""
    """With --mat: the names of its classes, 'n01440764 tench, Tinca tinca' per line."""
    coco: str = ""
    """COCO ground truth, a .json; images are found by their file names."""
    masks: str = ""
    """Folder of class-index PNGs, KEY.png: 0 background, 255 ignored; ids from --classes."""
    mask_field: str = ""
    """Field of the samples with such a PNG, instead of a folder."""
    classes: str = ""
    """Class file for --masks and --mask_field: YAML list of id and name."""
    threshold: float = 0.5
    """Foreground is above this; scores for the mean heat of each map stand beside it."""

    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = (
        *ScoringConfig.READ_BY_WORKERS,
        *("mat", "wnids", "coco", "masks", "classes"),
    )
    MAP_SETTINGS: ClassVar[tuple[str, ...]] = (*ScoringConfig.MAP_SETTINGS, "threshold")
    BY_CONTENTS: ClassVar[tuple[str, ...]] = ("mat", "wnids", "coco", "masks", "classes")
    IMAGE_SIZE: ClassVar[int | None] = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        truths = [self.mat, self.coco, self.masks, self.mask_field]
        if sum(map(bool, truths)) != 1:
            raise ConfigError("give one of --mat, --coco, --masks and --mask_field")
        if sum(map(bool, (self.mat, self.input, self.predictions))) != 1:
            raise ConfigError("give one of --predictions, --input and --mat")
        if self.predictions and self.mask_field:
            raise ConfigError("--predictions has no samples: give --masks or --coco")
        if self.mat and not self.wnids:
            raise ConfigError("--mat needs the names of its classes: --wnids")
        if (self.masks or self.mask_field) and not self.classes:
            raise ConfigError("--masks and --mask_field need --classes")
        if self.mat:
            refuse_given(self, (*self.OF_INPUT, *self.IMAGE_SETTINGS), "beside --mat")
        else:
            refuse_given(self, ["wnids"], "without --mat")
        if not (self.masks or self.mask_field):
            refuse_given(self, ["classes"], "without --masks or --mask_field")

    def unused(self) -> Sequence[str]:
        """Settings that would count for nothing beside --predictions: no image is read."""
        return (*super().unused(), *self.IMAGE_SETTINGS)


MEASURES = (
    ("pixel accuracy", "pixel_accuracy"),
    ("mIoU of foreground and background", "miou"),
)
"""What is measured at a threshold: for people, and its key."""


@dataclass(frozen=True)
class SegmentationResult:
    """What the stage found: scores in 0..1 and the counts."""

    scores: dict[str, Any]
    merged: Merged


def score_segmentation(config: SegmentationConfig) -> SegmentationResult:
    """Run the stage: count, score, write metrics and plots."""
    identity = {"metric": "segmentation", **config.identity()}
    if not config.mat:
        _truth(config)  # what cannot be read is told before anything starts
    make: MakeCounter
    if config.predictions:
        truth = partial(_truth, config)
        make = partial(WrittenCounter, config.predictions, truth, config.limit_samples)
    else:
        make = partial(
            RegionCounter,
            config,
            config.threshold,
            partial(_mat_reader if config.mat else _tar_reader, config),
        )
    if config.mat:
        shards, gaps = mat_shards(config.mat)[: config.limit_shards], None
        read_wnids(config.wnids)  # likewise
    else:
        shards, gaps = scored_shards(config)
    merged = count_shards(config, shards, identity, make, gaps=gaps)
    if not merged.table.num_rows:
        found = report.in_words(merged.samples | merged.rejects)
        raise ConfigError(f"no image of the shards has ground truth (images: {found})")
    if config.coco or config.masks:
        _refuse_repeated(merged.table)
    scores = segmentation_scores(merged.table)
    if config.predictions:
        scores["unpredicted"] = unpredicted(merged.table)
    result = SegmentationResult(scores, merged)
    _write(config, result)
    return result


def _refuse_repeated(table: pa.Table) -> None:
    """Ground truth is found by name: two samples may not have the same.

    Raises:
        ConfigError: an image was counted more than once.
    """
    images = table["image"].to_pylist()
    repeated = repeated_images(images, table["name"].to_pylist())
    if repeated:
        raise ConfigError(
            f"{len(repeated)} images of the ground truth are those of several samples (the first: "
            f"{repeated[0]}): they cannot be told apart"
        )


def _mat_reader(config: SegmentationConfig, fit: Fit) -> ReadShard[ClassMasks]:
    return MatReader(config.wnids, fit, config.limit_samples)


def _tar_reader(config: SegmentationConfig, fit: Fit) -> ReadShard[ClassMasks]:
    return ShardReader.of(config, _truth(config), fit)


def _truth(config: SegmentationConfig) -> FindTruth:
    return truth_of(config.coco, config.masks, config.classes, config.mask_field)


def _class_notes(scores: dict[str, Any]) -> list[str]:
    """Where the names of masks and of ground truth may not be the same names."""
    notes = []
    if scores.get("unpredicted", {}).get("pairs"):
        pairs, classes = scores["unpredicted"]["pairs"], scores["unpredicted"]["classes"]
        notes.append(
            f"{pairs:,} of {scores['regions']:,} pairs have no mask of their class, counted as "
            "found nothing"
            + (f"; classes without any mask: {', '.join(classes)}." * bool(classes) or ".")
        )
    if scores["unnamed_ids"]:
        ids = ", ".join(map(str, scores["unnamed_ids"]))
        notes.append(f"Ids in the masks that --classes does not name, taken for background: {ids}.")
    return notes


def _write(config: SegmentationConfig, result: SegmentationResult) -> None:
    scores, merged = result.scores, result.merged
    report.write_json(config.output, report.header(merged) | {"scores": scores})
    known = paper.known_model(merged.identity, paper.OWN_SIZE)
    published = paper.SEGMENTATION.get(config.method) if config.mat and known == paper.B16 else None
    accuracy, miou, precision = published or (None, None, None)
    at_half = config.threshold == paper.SEGMENTATION_THRESHOLD
    rows: list[tuple[object, ...]] = []
    for rule in RULES:
        if rule in scores:
            own = rule == "fixed"
            title = f"threshold {config.threshold:g}" if own else "threshold: mean of each map"
            title = "masks as written" if own and config.predictions else title
            beside = (accuracy, miou) if at_half or not own else (None, None)
            rows += [
                (f"{name}, {title}", 100 * scores[rule][key], value)
                for (name, key), value in zip(MEASURES, beside, strict=True)
            ]
    for name, title, paper_value in (
        ("two_channel_ap", "mAP, background and foreground", precision),
        ("foreground_ap", "AP of the foreground", None),
        ("multi_class_miou", "mIoU of all classes and background", None),
    ):
        if name in scores:
            rows.append((title, 100 * scores[name], paper_value))
    notes = [
        f"Images: {report.in_words(merged.samples)}; {scores['regions']:,} pairs of image and "
        f"class. The paper's ImageNet-Segmentation has {paper.SEGMENTATION_IMAGES:,} images."
    ]
    if merged.rejects:
        notes.append(f"Images that could not be scored: {report.in_words(merged.rejects)}.")
    notes += _class_notes(scores) + report.gap_notes(merged)
    parts = [report.table(("%", "score", "paper"), rows), report.bullet(notes)]
    report.write_markdown(config.output, "Segmentation", parts)
    best = sorted(scores["classes"].items(), key=lambda item: -item[1])[:40]
    report.plot_bars(config.output, "classes.png", {k: 100 * v for k, v in best}, "IoU, %")
