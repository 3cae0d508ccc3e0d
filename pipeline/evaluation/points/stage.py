"""`evaluate.py points`: masks or maps scored by the point labels of OpenImages V7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.evaluation.columns import repeated_images
from pipeline.evaluation.config import ScoringConfig
from pipeline.evaluation.counting import MakeCounter, Merged, count_shards
from pipeline.evaluation.points.counters import MapCounter, PredictionCounter
from pipeline.evaluation.points.counts import PAIRS_FILE, load_pairs
from pipeline.evaluation.points.gallery import draw_gallery
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.points.pairs import LabelledPairs
from pipeline.evaluation.points.pictures import kept_masks, worst_and_best
from pipeline.evaluation.points.report import PointResult, write_points
from pipeline.evaluation.points.scores import PairCounts, confidence_interval, unseen
from pipeline.evaluation.predictions import scored_shards
from pipeline.inputs.naming import Naming
from pipeline.inputs.shards import Shard, find_shards, shards_of
from pipeline.outputs.ledger import Ledger


@dataclass(frozen=True)
class PointsConfig(ScoringConfig):
    """Scoring by points."""

    points: str = ""
    """CSV of point labels: ImageId, X, Y, Label, EstimatedYesNo."""
    descriptions: str = ""
    """CSV of class descriptions: LabelName, DisplayName."""
    missing_images: Literal["skip", "empty"] = "skip"
    """Images with points that are in no shard: leave them out, or count them as found nothing."""
    sweep: bool = True
    """Also score other mask thresholds, from stored heat."""
    bootstrap: int = 1000
    """Samples of the images for the confidence interval; 0 for none."""
    seed: int = 0
    """Of these samples."""
    images: list[str] | str = ""
    """With --predictions: shards of the images, to draw the worst and the best of them."""
    gallery: bool = True
    """Draw the worst and the best images, where there are shards of them."""

    NO_RESULT: ClassVar[tuple[str, ...]] = (
        *ScoringConfig.NO_RESULT,
        *("descriptions", "missing_images", "bootstrap", "seed", "images"),
    )
    IMAGE_SIZE: ClassVar[int | None] = 448

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("points", "descriptions"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is needed: a CSV file")
        if bool(self.predictions) == bool(self.input):
            raise ConfigError("give either --predictions or --input (with --method and --model)")
        if self.images and not self.predictions:
            raise ConfigError("--images is for --predictions: --input has images of its own")
        if self.bootstrap < 0:
            raise ConfigError(f"--bootstrap {self.bootstrap}: must not be negative")

    def unused(self) -> Sequence[str]:
        """Settings that would count for nothing beside --predictions: only a gallery has images."""
        drawn = self.images and self.gallery
        return (*super().unused(), *(() if drawn else ("max_pixels", "max_sample_bytes")))


def score_points(config: PointsConfig) -> PointResult:
    """Run the stage: count, score, write metrics, plots and pictures.

    Raises:
        ConfigError: something about the input makes a score impossible or wrong.
    """
    pictured = _pictured(config)
    pairs, cleaning = read_labels(config.points, config.descriptions)
    if not len(pairs) and cleaning.unnamed_labels:
        label = next(iter(cleaning.unnamed_labels))
        raise ConfigError(
            f"--descriptions {config.descriptions}: names none of the classes with a usable yes "
            f"point in --points, such as {label}; it needs LabelName, DisplayName"
        )
    if not len(pairs):
        raise ConfigError(f"--points {config.points}: no class has a usable yes point")
    merged = _count(config, pairs)
    result = _score(config, pairs, merged)
    write_points(config.output, result, cleaning, config.missing_images)
    if config.gallery and (config.input or config.images):
        _draw(config, result, pictured)
    elif config.gallery:
        print("no gallery is drawn: --images SHARDS would say where the images are")
    return result


def _pictured(config: PointsConfig) -> list[Shard]:
    """The shards that --images names, looked up before anything is counted.

    Raises:
        ConfigError: a pattern of --images matches nothing.
    """
    images = [config.images] if isinstance(config.images, str) else config.images
    return find_shards(images, flag="--images") if config.images else []


def _count(config: PointsConfig, pairs: LabelledPairs) -> Merged:
    """Count all shards, with the points as a file that the workers read."""
    identity = {"metric": "points", **config.identity(), "points": pairs.digest()}
    shards, gaps = scored_shards(config)
    make: MakeCounter
    make_pairs = partial(load_pairs, config.output)
    if config.predictions:
        make = partial(
            PredictionCounter,
            config.predictions,
            make_pairs,
            config.sweep,
            config.gallery,
            config.limit_samples,
        )
    else:
        make = partial(MapCounter, config, make_pairs, config.gallery)
    return count_shards(config, shards, identity, make, {PAIRS_FILE: pairs.to_parquet()}, gaps)


def _score(config: PointsConfig, pairs: LabelledPairs, merged: Merged) -> PointResult:
    table = merged.table
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    repeated = repeated_images(images, labels)
    if repeated:
        raise ConfigError(
            f"{len(repeated)} image ids are the key of several samples (the first: {repeated[0]}): "
            "points cannot be told apart"
        )
    if not images:
        raise ConfigError(
            f"no image with points is in the shards; an image id ({pairs.images[0]}) has to be a "
            "sample's key"
        )
    if config.missing_images == "empty":
        table = pa.concat_tables([table, unseen(pairs, images)])
    counts = PairCounts.of(table)
    interval = None
    if config.bootstrap:
        interval = confidence_interval(counts, config.bootstrap, config.seed)
    return PointResult(
        averages=counts.averages(),
        everything=counts.constant(True).averages(),
        nothing=counts.constant(False).averages(),
        interval=interval,
        merged=merged,
        counts=counts,
        pairs=pairs,
    )


def _draw(config: PointsConfig, result: PointResult, pictured: list[Shard]) -> None:
    """Draw the worst and the best images."""
    counts = result.counts
    ious = dict(zip(counts.images, counts.image_ious().tolist(), strict=True))
    wanted = worst_and_best(ious)
    masks, having = kept_masks(result.merged.table, wanted.keys())
    if config.predictions:
        # The keys of masks are from the run's naming, whatever is said here.
        shards, naming = pictured, Naming.of(Ledger(config.predictions).identity())
    else:
        naming = Naming(config.key_end, config.image_field)
        shards = [shard for shard in shards_of(config) if shard.name in having]
    draw_gallery(config, shards, wanted, result.pairs, masks, naming)
