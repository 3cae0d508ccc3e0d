"""`evaluate.py prompted`: maps of sounds scored by the classes of ADE20K's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline import storage
from pipeline.errors import naming
from pipeline.evaluation import paper, report
from pipeline.evaluation.counting import Merged, count_shards
from pipeline.evaluation.prompted.config import PromptedConfig
from pipeline.evaluation.prompted.counters import ClassCounter
from pipeline.evaluation.prompted.scores import THRESHOLDS, prompted_scores
from pipeline.evaluation.prompted.tree import Table, class_shards, read_table


@dataclass(frozen=True)
class PromptedResult:
    """What the stage found: scores in 0..1, and the counts."""

    scores: dict[str, Any]
    merged: Merged


def score_prompted(config: PromptedConfig) -> PromptedResult:
    """Run the stage: count, score, write metrics."""
    with naming(f"--root {storage.public(config.root)}"):
        table = read_table(config.root, config.kind)
    shards = class_shards(config.root, table)[: config.limit_shards]
    identity = config.identity() | {"table": table.digest}
    merged = count_shards(config, shards, identity, partial(ClassCounter, config))
    report.check_scored(merged, f"--root {storage.public(config.root)}")
    result = PromptedResult(prompted_scores(merged.table), merged)
    _write(config, table, result)
    return result


def published_row(config: PromptedConfig) -> tuple[float | None, float | None]:
    """MAP and mIoU of the paper, in %, where the settings are its own."""
    if not config.is_published:
        return None, None
    row = "tokens" if config.maps == "tokens" else config.method
    return paper.PROMPTED[row][config.kind]


def _write(config: PromptedConfig, table: Table, result: PromptedResult) -> None:
    scores, merged = result.scores, result.merged
    classes = {
        str(row["number"]): {name: row[name] for name in ("rows", "ap", "iou", "threshold")}
        for row in merged.table.to_pylist()
    }
    content = {"scores": scores, "classes": classes, "left_out": table.left_out}
    report.write_json(config.output, report.header(merged) | content)
    published = published_row(config)
    rows = [
        ("mAP", 100 * scores["map"], published[0]),
        (f"mIoU, best of {THRESHOLDS} thresholds", 100 * scores["miou"], published[1]),
    ]
    notes = [
        f"{scores['pairs']:,} pairs of image and class, {scores['classes']:,} classes "
        f"({report.in_words(merged.samples)}); each class counts alike.",
        "The threshold of each class is the best one for its own pixels: an upper bound.",
    ]
    if scores["without_pixels"]:
        without = scores["without_pixels"]
        notes.append(f"Classes without a pixel in any image, which count 0 in both: {without}.")
    if table.left_out:
        notes.append(f"Rows of the table that are not scored: {report.in_words(table.left_out)}.")
    if merged.rejects:
        notes.append(f"Pairs that could not be scored: {report.in_words(merged.rejects)}.")
    notes += report.gap_notes(merged)
    parts = [report.table(("%", "score", "paper"), rows), report.bullet(notes)]
    report.write_markdown(config.output, f"ADE20K {config.kind.capitalize()} Prompted", parts)
