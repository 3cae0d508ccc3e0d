"""`evaluate.py layers`: how many layers, which layers, and LeGrad without its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.evaluation import paper, report
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Merged, count_shards
from pipeline.evaluation.layers.counters import GradientCounter, gradient_distribution
from pipeline.evaluation.perturbation.stage import PerturbationConfig, score_perturbation
from pipeline.evaluation.points.stage import PointsConfig, score_points
from pipeline.evaluation.segmentation.truth import truth_of
from pipeline.inputs.shards import shards_of
from pipeline.models.classifier import is_classifier
from pipeline.models.loading import depth_of


@dataclass(frozen=True)
class Variant:
    """LeGrad without some of its parts.

    Attributes:
        title: for people.
        published: its row in the paper's table: whether it has the ReLU, and the score of every
            layer; None where it has none.
        changes: to the settings. What crosses several blocks has no closed form.
        options: of the method.
    """

    title: str
    published: tuple[bool, bool] | None
    changes: dict[str, Any]
    options: dict[str, Any]


MOST_PANELS = 100
"""Classes whose distributions are drawn."""
WITHOUT_EXTRAS: dict[str, Any] = {"bootstrap": 0, "sweep": False, "gallery": False}
LAST: dict[str, Any] = {"score_layer": "last"}
AUTOGRAD: dict[str, Any] = {"algorithm": "autograd"}
VARIANTS = (
    Variant(
        "signed gradients, last layer's score", (False, False), AUTOGRAD, {"relu": False} | LAST
    ),
    Variant("ReLU, last layer's score", (True, False), AUTOGRAD, LAST),
    Variant("signed gradients, every layer's score", (False, True), {}, {"relu": False}),
    Variant("LeGrad", (True, True), {}, {}),
    Variant("the last layer alone", None, {"layers": 1}, {}),
)


@dataclass(frozen=True)
class LayersConfig(EvaluationConfig):
    """Studies of the layers."""

    study: Literal["sweep", "gradient", "ablation"] = "sweep"
    """sweep: scores over the number of last layers (figure 4); gradient: where the gradient is
    (figure 6; by class: 12 to 18); ablation: without ReLU, and with the last layer's score alone
    (table 9)."""
    points: str = ""
    """sweep: CSV of point labels, for p-mIoU."""
    descriptions: str = ""
    """CSV of class descriptions, with --points."""
    classes: str = ""
    """Class file, for perturbation (without it ImageNet's) and for --masks."""
    label_field: str = ""
    """Perturbation: a field of the .json with one class name, instead of .cls."""
    coco: str = ""
    """gradient: COCO ground truth."""
    masks: str = ""
    """gradient: folder of class-index PNGs, with ids from --classes."""
    per_layer_minmax: bool = False
    """gradient: normalise every layer's map first, which takes its magnitude away."""
    last: list[int] | None = None
    """sweep: numbers of last layers; all by default."""

    OF_STUDY: ClassVar[dict[str, tuple[str, ...]]] = {
        "sweep": ("points", "descriptions", "last"),
        "gradient": ("coco", "masks", "per_layer_minmax"),
    }
    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = (
        *EvaluationConfig.READ_BY_WORKERS,
        *("classes", "coco", "masks"),
    )
    # The evaluations of a study have settings of their own; counted here is the gradient alone.
    NO_RESULT: ClassVar[tuple[str, ...]] = (
        *EvaluationConfig.NO_RESULT,
        *("study", "points", "descriptions", "label_field", "last"),
    )
    BY_CONTENTS: ClassVar[tuple[str, ...]] = ("coco", "classes", "masks")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.input:
            raise ConfigError("--input is needed: shards of images")
        for study, names in self.OF_STUDY.items():
            for name in names:
                if study != self.study and getattr(self, name):
                    raise ConfigError(f"--{name}: only --study {study} has a use for it")
        if self.study == "gradient" and bool(self.coco) == bool(self.masks):
            raise ConfigError("--study gradient needs --coco or --masks")
        if self.masks and not self.classes:
            raise ConfigError("--masks needs --classes")
        if bool(self.points) != bool(self.descriptions):
            raise ConfigError("--points and --descriptions are needed together")
        if self.study == "ablation" and self.method != "legrad":
            raise ConfigError(
                f"--method {self.method}: --study ablation takes away parts of LeGrad; leave it out"
            )
        if is_classifier(self.model.name) and (self.study == "gradient" or self.points):
            what = "--study gradient" if self.study == "gradient" else "--points"
            raise ConfigError(
                f"{what} does not work with {self.model.name}: a classifier has no text tower; "
                "name a CLIP, or take --study sweep without --points, or --study ablation"
            )


@dataclass(frozen=True)
class LayersResult:
    """What the study found, and the counts that miss the most shards."""

    content: dict[str, Any]
    merged: Merged


def study_layers(config: LayersConfig) -> LayersResult:
    """Run the study. Each of its evaluations has a folder of its own, and is resumed there.

    Raises:
        ConfigError: layers are given to a study that sets them itself, and see its evaluations.
    """
    if config.layers is not None and config.study != "ablation":
        instead = "; --last says which numbers of layers" if config.study == "sweep" else ""
        raise ConfigError(f"--layers: --study {config.study} sets the layers itself{instead}")
    studies = {"sweep": _sweep, "gradient": _gradient, "ablation": _ablation}
    content, merged = studies[config.study](config)
    worst = max(merged, key=lambda counts: len(counts.missing))
    report.write_json(config.output, {"study": config.study, **content, **report.header(worst)})
    return LayersResult(content, worst)


def _sweep(config: LayersConfig) -> tuple[dict[str, Any], list[Merged]]:
    """p-mIoU with --points, otherwise negative and positive areas for the target class."""
    counts = config.last or list(range(1, depth_of(config.model) + 1))
    rows: list[dict[str, float]] = []
    merged = []
    for last in counts:
        if config.points:
            points = score_points(
                _of(config, PointsConfig, f"last-{last}", layers=last, **WITHOUT_EXTRAS)
            )
            rows.append({"layers": last, "p_miou": 100 * points.p_miou})
            merged.append(points.merged)
        else:
            areas, counted = _areas(config, f"last-{last}", layers=last)
            rows.append({"layers": last, **areas})
            merged.append(counted)
    names = [name for name in rows[0] if name != "layers"]
    report.write_markdown(
        config.output,
        "Number of last layers",
        [report.table(("last layers", *names), [tuple(row.values()) for row in rows])],
    )
    series = {name: ([r["layers"] for r in rows], [r[name] for r in rows]) for name in names}
    report.plot_lines(config.output, "layers.png", series, "number of last layers", "%")
    return {"rows": rows}, merged


def _ablation(config: LayersConfig) -> tuple[dict[str, Any], list[Merged]]:
    """Areas for the target class without parts of LeGrad."""
    own = config.identity()
    known = None if config.classes else paper.known_model(own, paper.OWN_SIZE)
    rows: list[tuple[object, ...]] = []
    merged: list[Merged] = []
    content: dict[str, dict[str, float]] = {}
    for number, variant in enumerate(VARIANTS):
        changes = variant.changes | {"options": config.options | variant.options}
        areas, counted = _areas(config, f"variant-{number}", **changes)
        content[variant.title] = areas
        published: tuple[float | None, float | None] = (None, None)
        if variant.published and known:
            published = paper.ABLATION[variant.published].get(known, published)
        rows.append(
            (variant.title, areas["negative"], published[0], areas["positive"], published[1])
        )
        merged.append(counted)
    head = ("variant", "negative", "paper", "positive", "paper")
    report.write_markdown(config.output, "LeGrad without its parts", [report.table(head, rows)])
    return {"rows": content}, merged


def _areas(config: LayersConfig, folder: str, **changes: Any) -> tuple[dict[str, float], Merged]:
    """Negative and positive area for the target class."""
    result = score_perturbation(_of(config, PerturbationConfig, folder, **changes))
    areas = result.scores["auc"]
    found = {"negative": areas["negative_target"], "positive": areas["positive_target"]}
    return found, result.merged


def _gradient(config: LayersConfig) -> tuple[dict[str, Any], list[Merged]]:
    """Mean raw map inside the objects, layer by layer."""
    identity = {"metric": "gradient", **config.identity()}
    truth = partial(truth_of, config.coco, config.masks, config.classes)
    truth()  # what cannot be read is told before anything starts
    make = partial(GradientCounter, config, config.per_layer_minmax, truth)
    merged = count_shards(config, shards_of(config), identity, make)
    if not merged.table.num_rows:
        raise ConfigError("no image of the shards has ground truth")
    found = gradient_distribution(merged.table)
    layers = list(range(1, len(found["layers"]) + 1))
    rows = zip(layers, found["raw"], found["layers"], strict=True)
    table = report.table(
        ("layer", "mean inside the object", "min-max over layers"),
        ((layer, f"{raw:.3e}", value) for layer, raw, value in rows),
    )
    drawn = dict(islice(found["classes"].items(), MOST_PANELS))
    left_out = len(found["classes"]) - len(drawn)
    note = f"classes.png has the first {MOST_PANELS} classes; metrics.json all." * (left_out > 0)
    report.write_markdown(config.output, "Gradient over the layers", [table, note])
    series = {"all classes": (layers, found["layers"])}
    y_label = "gradient inside the object"
    report.plot_lines(config.output, "layers.png", series, "layer", y_label)
    report.plot_panels(config.output, "classes.png", drawn, "layer", y_label)
    return found, [merged]


def _of(config: LayersConfig, kind: Any, folder: str, **changes: Any) -> Any:
    """The settings of one evaluation of a study."""
    names: Iterable[str] = {f.name for f in dataclasses.fields(kind)}
    shared = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name in names
    }
    return kind(**shared | {"output": storage.join(config.output, folder)} | changes)
