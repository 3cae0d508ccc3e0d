"""The files of a calibration: a class file, calibration.json, and a page of curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from pipeline import storage
from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.found import Found, Judged
from pipeline.calibration.levels import candidates, precision_recall
from pipeline.calibration.logistic import calibration_error, reliability
from pipeline.calibration.sample import LabelledSample
from pipeline.config import heard
from pipeline.evaluation import report
from pipeline.inputs.calibration import FORMAT, made_for
from pipeline.inputs.classes import Category

CLASSES, NUMBERS, PAGE = "classes.yaml", "calibration.json", "calibration.md"
NO_FAIR_NUMBER = (
    "Levels, thresholds and probabilities are chosen on these images: what masks made with them "
    "score on the same images is no fair number: score on others, or quote what is cross-validated."
)
DIGITS = 5
"""Of levels."""
DRAWN = 80
"""Levels of the curves of precision and recall."""


def write_classes(
    output: str,
    categories: Sequence[Category],
    levels: Mapping[str, tuple[float, float]],
    thresholds: Mapping[str, float],
    made_from: str = "",
) -> None:
    """Write the class file.

    Args:
        output: folder.
        categories: what it lists, in this order.
        levels: level of presence and the precision that it promises, by name.
        thresholds: by name, where a class has its own.
        made_from: the class file that they are from: sounds may be named from its folder on.
    """
    lines = []
    for category in categories:
        entry: dict[str, Any] = {"id": category.id, "name": category.name}
        if category.prompts != (category.name,):
            entry["prompts"] = list(category.prompts)
        if category.sounds:
            entry[heard.FIELD] = [_located(name, made_from) for name in category.sounds]
        threshold = thresholds.get(category.name, category.threshold)
        if threshold is not None:
            entry["threshold"] = threshold
        level = levels.get(category.name)
        if level is not None:
            entry["presence"] = level[0]
        text = yaml.safe_dump(
            entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
        ).strip()
        lines.append(f"- {text}" + (f"  # precision {level[1]:.3f}" if level else ""))
    data = ("\n".join(lines) + "\n").encode()
    storage.write_bytes(storage.join(output, CLASSES), data)


def _located(sound: str, made_from: str) -> str:
    """Where a sound is for a class file in another folder."""
    if storage.is_uri(sound):
        return sound
    # What the location of the class file has of credentials is not for a file to keep.
    return storage.public(storage.absolute(heard.locate(sound, made_from)))


def write_numbers(output: str, numbers: Mapping[str, Any]) -> None:
    """Write calibration.json, which --prompts.calibration reads."""
    text = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(storage.join(output, NUMBERS), text.encode() + b"\n")


def numbers_of(
    config: CalibrateConfig,
    identity: Mapping[str, Any],
    sample: LabelledSample,
    found: Found,
    judged: Judged,
) -> dict[str, Any]:
    """All that was found, as JSON values; what does not exist is null."""
    levels, spots = found.levels, sample.overlaps
    counts, there = (
        np.bincount(sample.label[which], minlength=len(sample.names))
        for which in (slice(None), sample.present)
    )
    tried = [] if spots is None else [round(float(value), 2) for value in spots.thresholds]
    own = found.own_thresholds if judged.by_class and config.thresholds else None
    recall = precision_recall(sample.score > levels.run, sample.present, int(sample.missed.sum()))[
        1
    ]
    return {
        "format": FORMAT,
        "made_for": made_for(identity),
        "probability": {"slope": found.curve.slope, "intercept": found.curve.intercept},
        "presence": {
            "level": round(levels.run, DIGITS),
            "precision": levels.precision,
            "confidence": config.confidence,
            "recall": recall,
        },
        "threshold": None if found.threshold is None else tried[found.threshold],
        "classes": {
            name: {
                "pairs": int(counts[code]),
                "present": int(there[code]),
                "presence": round(float(levels.own[code]), DIGITS),
                "precision": float(levels.own_precision[code]),
                "threshold": None if own is None else tried[own[code]],
            }
            for code, name in enumerate(sample.names)
        },
        "sample": {
            "images": sample.images,
            "images_without_truth": sample.unknown,
            "pairs": len(sample.score),
            "present": int(sample.present.sum()),
            "missed": int(sample.missed.sum()),
        },
        "cross_validated": {
            "folds": config.folds,
            "seed": config.seed,
            "precision": _number(judged.run[0]),
            "recall": _number(judged.run[1]),
            "precision_by_class": _number(judged.own[0]),
            "recall_by_class": _number(judged.own[1]),
            "calibration_error": judged.error,
            "calibration_error_above_levels": _number(judged.error_above),
            "brier": judged.brier,
            "measure": None if spots is None else spots.measure,
            "at_0.5": judged.usual,
            "at_threshold": judged.run_threshold,
            "at_thresholds_by_class": judged.own_threshold,
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summary(sample: LabelledSample, numbers: Mapping[str, Any]) -> list[str]:
    """What was found, a line each."""
    size, judged, level = numbers["sample"], numbers["cross_validated"], numbers["presence"]
    lines = [
        f"{size['images']:,} images, {size['pairs']:,} pairs, {size['present']:,} of them there"
        + (f" ({size['missed']:,} more were not looked for)" if size["missed"] else "")
        + (f"; nothing is known of {sample.unknown:,} images" if sample.unknown else ""),
        f"presence: above {level['level']} at least {level['precision']:.3f} of the pairs are "
        f"there ({level['confidence']:.0%} sure)",
        f"cross-validated over {judged['folds']} parts (seed {judged['seed']}):",
        f"  one level for all: precision {_shown(judged['precision'])}, "
        f"recall {_shown(judged['recall'])}",
        f"  levels of classes: precision {_shown(judged['precision_by_class'])}, "
        f"recall {_shown(judged['recall_by_class'])}",
        f"  probability: expected calibration error {judged['calibration_error']:.4f} of all "
        f"pairs, {_shown(judged['calibration_error_above_levels'])} of those above their level; "
        f"Brier {judged['brier']:.4f}",
    ]
    if numbers["threshold"] is None:
        lines.append(f"no thresholds: {sample.why_none}")
    else:
        kept = any(entry["threshold"] is not None for entry in numbers["classes"].values())
        optimum = "" if judged["measure"] == "mask mIoU" else ", which is not that of mask mIoU"
        lines += [
            f"  {judged['measure']}: {judged['at_0.5']:.3f} at 0.5, "
            f"{judged['at_threshold']:.3f} at one threshold, "
            f"{judged['at_thresholds_by_class']:.3f} at thresholds of classes",
            f"--mask.threshold {numbers['threshold']} is best by {judged['measure']}{optimum}; "
            f"thresholds of classes are {'' if kept else 'not '}written",
        ]
    return [*lines, NO_FAIR_NUMBER]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def write_page(
    output: str,
    sample: LabelledSample,
    judged: Judged,
    numbers: Mapping[str, Any],
    lines: Sequence[str],
) -> None:
    """Write calibration.md, and the curves that it shows."""
    pictures = ["presence.png", "reliability.png"]
    _plot_presence(output, sample)
    _plot_reliability(output, sample, judged)
    if sample.overlaps is not None:
        every = np.ones(len(sample.overlaps.image), dtype=bool)
        by_threshold = sample.overlaps.curves(every, len(sample.names))[2]
        line = (sample.overlaps.thresholds.tolist(), (100 * by_threshold).tolist())
        measure = sample.overlaps.measure
        report.plot_lines(
            output, "thresholds.png", {measure: line}, "mask threshold", f"{measure}, %"
        )
        pictures.append("thresholds.png")
    columns = ("pairs", "present", "presence", "precision", "threshold")
    rows = [
        (name, *(_cell(column, entry[column]) for column in columns))
        for name, entry in numbers["classes"].items()
    ]
    parts = [
        report.bullet(line.strip() for line in lines),
        *(f"![{name.removesuffix('.png')}]({name})" for name in pictures),
        report.table(("class", *columns), rows),
    ]
    report.write_markdown(output, "Calibration", parts, PAGE)


def _cell(column: str, value: float | int | None) -> object:
    """Levels and precisions need more digits than the tables of scores have."""
    if value is None or column in ("pairs", "present"):
        return value
    return f"{value:.{DIGITS}f}" if column == "presence" else f"{value:.3f}"


def _plot_presence(output: str, sample: LabelledSample) -> None:
    levels = candidates(sample.score, sample.present)
    shown = np.linspace(levels[0], levels[-1], DRAWN)
    missed = int(sample.missed.sum())
    curves = [precision_recall(sample.score > level, sample.present, missed) for level in shown]
    series = {
        name: (shown.tolist(), [100 * pair[place] for pair in curves])
        for place, name in enumerate(("precision", "recall"))
    }
    report.plot_lines(output, "presence.png", series, "level of presence", "%")


def _plot_reliability(output: str, sample: LabelledSample, judged: Judged) -> None:
    counts, means, parts = reliability(judged.probability, sample.present)
    used = counts > 0
    error = calibration_error(judged.probability, sample.present)
    series = {
        f"cross-validated, error {error:.4f}": (
            (100 * means[used]).tolist(),
            (100 * parts[used]).tolist(),
        ),
        "as it should be": ([0, 100], [0, 100]),
    }
    report.plot_lines(output, "reliability.png", series, "probability, %", "is there, %")
