"""`evaluate.py points`: masks or maps scored by the point labels of OpenImages V7."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.config import ConfigError
from pipeline.evaluation import paper, report
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.gallery import draw_gallery
from pipeline.evaluation.labels import Cleaning, read_labels
from pipeline.evaluation.pairs import LabelledPairs
from pipeline.evaluation.point_counters import (
    PAIRS_FILE,
    MakeMapCounter,
    MakePredictionCounter,
    repeated_images,
)
from pipeline.evaluation.point_scores import (
    AVERAGES,
    PER_CLASS,
    PairCounts,
    class_ious,
    confidence_interval,
    score_sweep,
    threshold_sweep,
    unseen,
)
from pipeline.evaluation.predictions import predicted_shards
from pipeline.evaluation.running import MakeCounter, Merged, count_shards
from pipeline.ledger import Ledger
from pipeline.shards import find_shards

SHOWN = 20
"""Names shown of a longer list, in metrics.md and in the bar chart."""


@dataclass(frozen=True)
class PointsConfig(EvaluationConfig):
    """Scoring by points."""

    predictions: str = ""
    """Output of an annotation run: its masks are scored. Without it, --input's images are
    explained by --method on --model (squashed to 448 x 448 unless --model.image_size says)."""
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

    IMAGE_SIZE: ClassVar[int | None] = 448

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("points", "descriptions"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is needed: a CSV file")
        if bool(self.predictions) == bool(self.input):
            raise ConfigError("give either --predictions or --input (with --method and --model)")
        if self.bootstrap < 0:
            raise ConfigError(f"--bootstrap {self.bootstrap}: must not be negative")


@dataclass(frozen=True)
class PointResult:
    """What the stage found; all scores in 0..1.

    Attributes:
        averages: the four ways of averaging.
        everything, nothing: the same for masks that cover all, and for none.
        interval: 95 % confidence interval of p-mIoU; None without bootstrap.
        merged: the counts and their making.
        counts: the counts that were scored.
        pairs: the points.
    """

    averages: dict[str, float]
    everything: dict[str, float]
    nothing: dict[str, float]
    interval: tuple[float, float] | None
    merged: Merged
    counts: PairCounts
    pairs: LabelledPairs

    @property
    def p_miou(self) -> float:
        """Foreground IoU, mean over classes."""
        return self.averages[PER_CLASS]


def score_points(config: PointsConfig) -> PointResult:
    """Run the stage: count, score, write metrics, plots and pictures.

    Raises:
        ConfigError: something about the input makes a score impossible or wrong.
    """
    pairs, cleaning = read_labels(config.points, config.descriptions)
    if not len(pairs):
        raise ConfigError(f"--points {config.points}: no class has a usable yes point")
    merged = _count(config, pairs)
    result = _score(config, pairs, merged)
    _write(config, cleaning, result)
    return result


def _count(config: PointsConfig, pairs: LabelledPairs) -> Merged:
    """Count all shards, with the points as a file that the workers read."""
    data = pairs.to_parquet()
    results: dict[str, Any] = {
        "metric": "points",
        "points": pairs.digest(),
        "sweep": config.sweep,
    }
    make: MakeCounter
    if config.predictions:
        shards = predicted_shards(config.predictions)[: config.limit_shards]
        results["predictions"] = Ledger(config.predictions).results()
        make = MakePredictionCounter(config.predictions, config.output, config.sweep)
    else:
        patterns = [config.input] if isinstance(config.input, str) else config.input
        shards = find_shards(patterns, config.input_root)[: config.limit_shards]
        results |= config.method_results()
        make = MakeMapCounter(config, config.output)
    return count_shards(config, shards, results, make, {PAIRS_FILE: data})


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


def _write(config: PointsConfig, cleaning: Cleaning, result: PointResult) -> None:
    counts, pairs = result.counts, result.pairs
    classes = _class_rows(result)
    unpredicted = [row["name"] for row in classes if not row["masks"]]
    seen = set(result.merged.table["image"].to_pylist())
    missing = [image for image in pairs.images if image not in seen]
    sweeps = {"scores": score_sweep(counts), "thresholds": threshold_sweep(counts)}
    content = report.header(result.merged) | {
        "rows": asdict(cleaning),
        "data": {
            "images": len(counts.images),
            "classes": len(counts.labels),
            "pairs": len(counts.tp),
            "pairs_with_mask": int(counts.has_mask.sum()),
            "yes": int(counts.yes.sum()),
            "no": int(counts.no.sum()),
        },
        "scores": result.averages,
        "everything": result.everything,
        "nothing": result.nothing,
        "confidence_interval": result.interval,
        "rebuilt_mask_iou": _rebuilt_iou(result.merged.table),
        "sweeps": sweeps,
        "classes": classes,
        "classes_without_predictions": unpredicted,
        "images_without_predictions": missing,
    }
    report.write_json(config.output, content)
    notes = _notes(config, cleaning, content)
    report.write_markdown(config.output, "Points", [_score_table(result), report.bullet(notes)])
    report.write_markdown(config.output, "Classes", [_class_table(classes)], "classes.md")
    _plot(config, classes, sweeps)
    if config.images and config.predictions:
        draw_gallery(config.output, config.predictions, config.images, counts, pairs)


def _class_rows(result: PointResult) -> list[dict[str, Any]]:
    """Counts and IoU of every class, best first."""
    names = {label.id: label.name for label in result.pairs.labels}
    sums = result.counts.classes()
    ious = class_ious(sums["tp"], sums["fp"], sums["yes"] - sums["tp"])
    rows = [
        {"label": label, "name": names[label]}
        | {name: int(values[i]) for name, values in sums.items()}
        | {"iou": float(ious[i])}
        for i, label in enumerate(result.counts.labels)
    ]
    return sorted(rows, key=lambda row: (-row["iou"], row["name"]))


def _rebuilt_iou(table: pa.Table) -> float | None:
    """Mean IoU of the written masks with those that their stored heat gives back."""
    union = table["rebuilt_union"].drop_null().to_numpy()
    intersection = table["rebuilt_intersection"].drop_null().to_numpy()
    return float(np.mean(intersection / np.maximum(union, 1))) if len(union) else None


def _score_table(result: PointResult) -> str:
    settings = result.merged.results.get("predictions", result.merged.results)
    known = paper.known_model(settings)
    published = paper.POINTS.get(settings.get("method", ""), {}).get(known or "")
    low, high = result.interval or (None, None)
    interval = f"{100 * low:.2f} to {100 * high:.2f}" if low is not None and high else ""
    rows = [
        (
            f"**{name}**" if name == PER_CLASS else name,
            100 * result.averages[name],
            interval if name == PER_CLASS else None,
            100 * result.everything[name],
            100 * result.nothing[name],
            published if name == PER_CLASS else None,
        )
        for name in AVERAGES
    ]
    head = ("IoU in %, mean over", "score", "95 %", "masks of everything", "no masks", "paper")
    return report.table(head, rows)


def _notes(config: PointsConfig, cleaning: Cleaning, content: dict[str, Any]) -> list[str]:
    data, missing = content["data"], content["images_without_predictions"]
    unpredicted = content["classes_without_predictions"]
    notes = [
        f"{data['images']:,} images, {data['classes']:,} classes, {data['pairs']:,} pairs of them "
        f"({data['pairs_with_mask']:,} with a mask), {data['yes']:,} yes and {data['no']:,} no "
        f"points. The paper counts {paper.POINT_IMAGES:,} images.",
        f"{cleaning.rows:,} rows in the point file; left out: "
        + (", ".join(f"{n:,} {reason}" for reason, n in cleaning.left_out.items()) or "none")
        + ".",
    ]
    if cleaning.strange_answers:
        notes.append(f"ERROR in the point file: unknown answers {cleaning.strange_answers}.")
    if cleaning.unnamed_labels:
        notes.append(f"Labels without a name: {_some(list(cleaning.unnamed_labels))}.")
    if missing:
        counted = "not scored" if config.missing_images == "skip" else "counted as found nothing"
        notes.append(f"Images with points that are in no shard, {counted}: {_some(missing)}.")
    if unpredicted:
        notes.append(f"Classes without any mask, counted as 0: {_some(unpredicted)}.")
    if content["rebuilt_mask_iou"] is not None:
        notes.append(
            f"Masks rebuilt from stored heat have an IoU of {content['rebuilt_mask_iou']:.4f} with "
            "the written ones: the sweep over thresholds is that exact."
        )
    if content["missing_shards"]:
        notes.append(f"Shards without counts: {_some(content['missing_shards'])}.")
    return notes


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{len(names):,} ({shown}{', …' if len(names) > SHOWN else ''})"


def _class_table(classes: list[dict[str, Any]]) -> str:
    columns = ("name", "pairs", "masks", "yes", "no", "tp", "fp")
    rows = [(*(row[c] for c in columns), 100 * row["iou"]) for row in classes]
    return report.table((*columns, "IoU"), rows)


def _plot(
    config: PointsConfig, classes: list[dict[str, Any]], sweeps: dict[str, list[dict[str, float]]]
) -> None:
    if len(classes) > 2 * SHOWN:
        classes = classes[:SHOWN] + classes[-SHOWN:]
    bars = {row["name"]: 100 * row["iou"] for row in classes}
    report.plot_bars(config.output, "classes.png", bars, "IoU, %")
    for name, x, x_label in (
        ("scores", "score", "masks count above this score"),
        ("thresholds", "threshold", "mask threshold"),
    ):
        points = sweeps[name]
        if points:
            line = ([p[x] for p in points], [100 * p["p_miou"] for p in points])
            report.plot_lines(config.output, f"{name}.png", {"p-mIoU": line}, x_label, "p-mIoU, %")
