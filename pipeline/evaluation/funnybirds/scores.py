"""FunnyBirds' scores, all in 0..1, from the rows of all images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pipeline.evaluation.funnybirds.parts import THRESHOLDS

BY_THRESHOLD = ("csdc", "pc", "dc", "d")
SUMMARY = ("completeness", "correctness", "contrastivity")
SMALL = 1e-8
"""Added to the number of images that distractibility is the mean of, as in the authors' code."""


def bird_scores(table: pa.Table) -> dict[str, Any]:
    """Every score; None where no image says anything about it.

    One threshold is chosen for the four scores that depend on one: the first of those where
    (CSDC + PC + DC) / 3 + D is largest.
    """
    target, predicted = table["target"].to_numpy(), table["predicted"].to_numpy()
    curves = {
        "csdc": _mean(table["sufficiency"]),
        "pc": _mean(table["preserved"]),
        "dc": _mean(table["deleted"]),
        "d": 1 - _sum(table["distracted"]) / (_count(table["distracted"]) + SMALL),
    }
    known = {name: np.zeros_like(THRESHOLDS) if c is None else c for name, c in curves.items()}
    together = known["csdc"] / 3 + known["pc"] / 3 + known["dc"] / 3 + known["d"]
    best = int(np.argmax(together))
    scores: dict[str, Any] = {
        name: None if curve is None else float(curve[best]) for name, curve in curves.items()
    }
    answers = [answer for pair in table["sensitivity"].drop_null().to_pylist() for answer in pair]
    objects = int(table["objects"].to_numpy().sum())
    relevant = int(table["relevant_objects"].to_numpy().sum())
    deletions = table["deletion"].drop_null().to_numpy()
    scores |= {
        "accuracy": float((target == predicted).mean()),
        "sd": float(deletions.mean()) if len(deletions) else None,
        "ts": sum(answers) / len(answers) if answers else None,
        "bi": 1 - relevant / objects if objects else None,
        "threshold": float(THRESHOLDS[best]),
    }
    return scores | summary(scores) | {"images": _numbers(table), "curves": _lists(curves)}


def summary(scores: dict[str, Any]) -> dict[str, float | None]:
    """The three axes that scores are put together to, and their mean."""
    complete = [scores[name] for name in BY_THRESHOLD]
    axes: dict[str, float | None] = {
        "completeness": None,
        "correctness": scores["sd"],
        "contrastivity": scores["ts"],
    }
    if None not in complete:
        axes["completeness"] = (sum(complete[:3]) / 3 + complete[3]) / 2
    values = [axes[name] for name in SUMMARY]
    known = [value for value in values if value is not None]
    return axes | {"overall": sum(known) / len(known) if len(known) == len(values) else None}


def _numbers(table: pa.Table) -> dict[str, int]:
    """How many images each score is of, and why not of all."""
    counts = {
        "all": table.num_rows,
        "csdc": _count(table["sufficiency"]),
        "d": _count(table["distracted"]),
        "sd": _count(table["deletion"]),
        "ts": _count(table["sensitivity"]),
    }
    for reason in table["insensitive"].drop_null().to_pylist():
        counts[f"ts: {reason}"] = counts.get(f"ts: {reason}", 0) + 1
    return counts


def _count(column: pa.ChunkedArray) -> int:
    return len(column) - int(column.null_count)


def _sum(column: pa.ChunkedArray) -> Float64[np.ndarray, " threshold"]:
    rows = column.drop_null().to_pylist()
    total: np.ndarray = np.array(rows, dtype=np.float64).reshape(-1, len(THRESHOLDS)).sum(axis=0)
    return total


def _mean(column: pa.ChunkedArray) -> Float64[np.ndarray, " threshold"] | None:
    count = _count(column)
    return _sum(column) / count if count else None


def _lists(curves: dict[str, Any]) -> dict[str, list[float] | None]:
    return {name: None if curve is None else curve.tolist() for name, curve in curves.items()}
