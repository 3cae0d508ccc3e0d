"""What `evaluate.py points` writes about its scores: metrics, tables and plots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evaluation import paper, report
from pipeline.evaluation.counting import Merged
from pipeline.evaluation.points.labels import Cleaning
from pipeline.evaluation.points.pairs import LabelledPairs
from pipeline.evaluation.points.scores import (
    AVERAGES,
    PER_CLASS,
    PairCounts,
    class_ious,
    score_sweep,
    threshold_sweep,
)

SHOWN = 20
"""Names shown of a longer list, in metrics.md and in the bar chart."""


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


def write_points(output: str, result: PointResult, cleaning: Cleaning, missing_images: str) -> None:
    """Write metrics.json, metrics.md, classes.md and the plots.

    Args:
        output: of the evaluation.
        result: what was found.
        cleaning: what was left out of the point file.
        missing_images: `skip` or `empty`: how images in no shard were counted.
    """
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
    report.write_json(output, content)
    notes = _notes(missing_images, cleaning, content) + report.gap_notes(result.merged)
    report.write_markdown(output, "Points", [_score_table(result), report.bullet(notes)])
    report.write_markdown(output, "Classes", [_class_table(classes)], "classes.md")
    _plot(output, classes, sweeps)


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
    settings = result.merged.identity.get("predictions", result.merged.identity)
    known = paper.known_model(settings, paper.POINT_SIZE)
    published = paper.POINTS.get(settings.get("method", ""), {}).get(known or "")
    interval = " to ".join(f"{100 * end:.2f}" for end in result.interval or ())
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


def _notes(missing_images: str, cleaning: Cleaning, content: dict[str, Any]) -> list[str]:
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
        counted = "not scored" if missing_images == "skip" else "counted as found nothing"
        gaps = content["missing_shards"] or content.get("run", {}).get("missing")
        gaps = gaps or content.get("run", {}).get("incomplete")
        where = "not seen, be it for what the shards below lack" if gaps else "in no shard"
        notes.append(f"Images with points that are {where}, {counted}: {_some(missing)}.")
    if unpredicted:
        notes.append(f"Classes without any mask, counted as 0: {_some(unpredicted)}.")
    if content["rebuilt_mask_iou"] is not None:
        notes.append(
            f"Masks rebuilt from stored heat have an IoU of {content['rebuilt_mask_iou']:.4f} with "
            "the written ones: the sweep over thresholds is that exact."
        )
    return notes


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{len(names):,} ({shown}{', …' if len(names) > SHOWN else ''})"


def _class_table(classes: list[dict[str, Any]]) -> str:
    columns = ("name", "pairs", "masks", "yes", "no", "tp", "fp")
    rows = [(*(row[c] for c in columns), 100 * row["iou"]) for row in classes]
    return report.table((*columns, "IoU"), rows)


def _plot(
    output: str, classes: list[dict[str, Any]], sweeps: dict[str, list[dict[str, float]]]
) -> None:
    if len(classes) > 2 * SHOWN:
        classes = classes[:SHOWN] + classes[-SHOWN:]
    bars = {row["name"]: 100 * row["iou"] for row in classes}
    report.plot_bars(output, "classes.png", bars, "IoU, %")
    for name, x, x_label in (
        ("scores", "score", "masks count above this score"),
        ("thresholds", "threshold", "mask threshold"),
    ):
        points = sweeps[name]
        if points:
            line = ([p[x] for p in points], [100 * p["p_miou"] for p in points])
            report.plot_lines(output, f"{name}.png", {"p-mIoU": line}, x_label, "p-mIoU, %")
