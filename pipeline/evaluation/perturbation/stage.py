"""`evaluate.py perturbation`: maps scored by what the model no longer sees without them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import ConfigError
from pipeline.evaluation import paper, report
from pipeline.evaluation.class_names import BAD_LABEL, ClassNames
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Merged, count_shards
from pipeline.evaluation.perturbation.counters import (
    CURVES,
    STEPS,
    PerturbationCounter,
    perturbation_scores,
)
from pipeline.inputs.reader import ShardReader, as_stored
from pipeline.inputs.samples import Rejected
from pipeline.inputs.shards import Shard, shards_of
from pipeline.storage import digests


@dataclass(frozen=True)
class PerturbationConfig(EvaluationConfig):
    """Scoring by perturbation."""

    classes: str = ""
    """Class file, a YAML list of id and name; without it, the 1000 classes of ImageNet."""
    label_field: str = ""
    """A field of the .json with a list of class names: samples with exactly one are scored.
    Without it, the class id in .cls."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.input:
            raise ConfigError("--input is needed: shards with a class for every image")


@dataclass(frozen=True)
class PerturbationResult:
    """What the stage found: accuracies in 0..1, areas in 0..90, and the counts."""

    scores: dict[str, Any]
    merged: Merged


def score_perturbation(config: PerturbationConfig) -> PerturbationResult:
    """Run the stage: count, score, write metrics and plots."""
    classes = ClassNames.load(config.classes, config.label_field)
    names = "\n".join(f"{i} {name}" for i, name in zip(classes.ids, classes.names, strict=True))
    identity = {
        "metric": "perturbation",
        **config.identity(),
        "classes": digests.of_text(names),
    }
    make = partial(PerturbationCounter, config, classes)
    shards = shards_of(config)
    merged = count_shards(config, shards, identity, make)
    if not merged.table.num_rows:
        counted = next(shard for shard in shards if shard.name not in merged.missing)
        raise ConfigError(
            f"no image of the shards has exactly one class{_example(config, classes, counted)}"
        )
    result = PerturbationResult(perturbation_scores(merged.table), merged)
    _write(config, result)
    return result


def _example(config: PerturbationConfig, classes: ClassNames, shard: Shard) -> str:
    """What is wrong with the label of a shard's first sample with a bad one, if any."""
    known = config.classes or "ImageNet's"
    for sample in ShardReader.of(config, classes.target, as_stored)(shard):
        if isinstance(sample, Rejected) and sample.reason == BAD_LABEL:
            return f": {sample.key}, for example: {sample.detail} (classes: {known})"
    return ""


def _write(config: PerturbationConfig, result: PerturbationResult) -> None:
    scores, merged = result.scores, result.merged
    report.write_json(config.output, report.header(merged) | {"scores": scores})
    known = None if config.classes else paper.known_model(merged.identity, paper.OWN_SIZE)
    published = paper.PERTURBATION.get(config.method, {}).get(known or "")
    rows = []
    # The paper's order is that of `CURVES`: negative for both classes, then positive.
    for position, curve in enumerate(CURVES):
        sign, _, kind = curve.partition("_")
        better = "higher is better" if sign == "negative" else "lower is better"
        value = published[position] if published else None
        rows.append((f"{sign}, {kind} class ({better})", scores["auc"][curve], value))
    accuracy = scores["accuracy"]
    notes = [
        f"{merged.table.num_rows:,} images ({report.in_words(merged.samples)}); the paper has "
        f"{paper.PERTURBATION_IMAGES:,}.",
        f"Accuracy on clean images {100 * accuracy:.2f} %, so that no area exceeds "
        f"{90 * accuracy:.2f} unless removing pixels helps.",
    ]
    notes += report.gap_notes(merged)
    parts = [report.table(("AUC", "score", "paper"), rows), report.bullet(notes)]
    report.write_markdown(config.output, "Perturbation", parts)
    removed = [0.0, *STEPS]
    series = {
        curve.replace("_", ", "): (removed, [100 * accuracy, *(100 * v for v in values)])
        for curve, values in scores["curves"].items()
    }
    report.plot_lines(config.output, "curves.png", series, "pixels removed", "accuracy, %")
