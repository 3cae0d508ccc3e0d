"""`evaluate.py funnybirds`: a classifier's explanations scored by the parts of birds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pipeline import storage
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError, naming
from pipeline.evaluation import paper, report
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.counting import Merged, count_shards
from pipeline.evaluation.funnybirds.counters import BirdCounter, MapKind, ModelSubject, Resize
from pipeline.evaluation.funnybirds.dataset import FILES, Birds, Files
from pipeline.evaluation.funnybirds.parts import THRESHOLDS
from pipeline.evaluation.funnybirds.scores import BY_THRESHOLD, bird_scores
from pipeline.models.classifier import is_classifier
from pipeline.storage import digests

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""The authors' models take pixels in 0..1 as they are."""
UNUSED = ("input", "input_root", "templates", "key_end", "image_field")
"""Settings about shards and texts."""
TITLES = {
    "csdc": "CSDC, controlled synthetic data check",
    "pc": "PC, preservation check",
    "dc": "DC, deletion check",
    "d": "D, distractibility",
    "sd": "SD, single deletion",
    "ts": "TS, target sensitivity",
    "completeness": "completeness, ((CSDC + PC + DC) / 3 + D) / 2",
    "correctness": "correctness, SD",
    "contrastivity": "contrastivity, TS",
    "overall": "mean of the three",
    "accuracy": "accuracy of the model",
    "bi": "BI, background independence of the model",
}


@dataclass(frozen=True)
class FunnyBirdsConfig(EvaluationConfig):
    """Scoring by the parts of FunnyBirds."""

    data: str = ""
    """The folder FunnyBirds, a path or an s3:// or gs:// prefix: classes.json, parts.json,
    dataset_test.json, test/, test_part_map/ and test_interventions/."""
    maps: MapKind = "auto"
    """What an attribution is. raw: the map as it is; minmax: in 0..1 on the grid of patches; both
    with the nearest patch for a pixel. heat: what masks are made of, upsampled bilinearly. auto:
    raw for rollout and transformer_attribution, as in the authors' code, minmax for all others."""
    resize: Resize = "nearest"
    """How images become those of the model: nearest, as in the authors' code, or as the model's own
    preprocessing does it. Pixels stay in 0..1 unless --model.mean and --model.std say otherwise."""
    corrected: bool = False
    """Without two slips of the authors' code, which published numbers have: that images of the last
    class get 0 for CSDC, and that TS takes classes that share the same part where no others are."""

    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = (*EvaluationConfig.READ_BY_WORKERS, "data")
    # Of --data, what its files hold is in the identity.
    NO_RESULT: ClassVar[tuple[str, ...]] = (*EvaluationConfig.NO_RESULT, "data", *UNUSED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise ConfigError("--data is needed: the folder FunnyBirds")
        if storage.is_http(self.data):
            raise ConfigError(
                f"--data {storage.public(self.data)}: a web server cannot list a folder; give a "
                "directory, or an s3:// or gs:// prefix"
            )
        for name in UNUSED:
            if getattr(self, name) != getattr(EvaluationConfig(), name):
                raise ConfigError(f"--{name}: FunnyBirds has no use for it; its images are --data")
        if not is_classifier(self.model.name):
            raise ConfigError(
                f"--model.name {self.model.name}: the birds' classes have numbers and no names, so "
                "that no CLIP knows them: give a classifier, timm/NAME, with weights that were "
                "trained on them"
            )

    def sized_model(self) -> ModelConfig:
        """The model, with what belongs to its weights."""
        sized = super().sized_model()
        mean, std = sized.mean or list(MEAN), sized.std or list(STD)
        return dataclasses.replace(sized, mean=mean, std=std)

    @property
    def is_published(self) -> bool:
        """Whether all but the weights, which have no name, is as in the paper."""
        model = self.sized_model()
        return (
            model.name.startswith(paper.BIRD_MODEL)
            and (model.image_size or paper.OWN_SIZE) == paper.OWN_SIZE
            and (tuple(model.mean or ()), tuple(model.std or ())) == (MEAN, STD)
            and (self.maps, self.resize, self.corrected) == ("auto", "nearest", False)
            and (self.layers, self.empty_text) == (None, "auto")
            and self.views.plain
        )


@dataclass(frozen=True)
class FunnyBirdsResult:
    """What the stage found: scores in 0..1, and the counts."""

    scores: dict[str, Any]
    merged: Merged


def score_funnybirds(config: FunnyBirdsConfig) -> FunnyBirdsResult:
    """Run the stage: count, score, write metrics and a plot.

    Raises:
        ConfigError: the data set is not there, or the model has other classes.
    """
    birds, files = Birds.load(config.data), Files(config.data)
    identity = {"metric": "funnybirds", **config.identity(), "data": _digest(config.data)}
    make_subject = partial(_subject, config)
    make = partial(BirdCounter, config, config.data, config.corrected, make_subject)
    with naming(f"--data {storage.public(config.data)}"):
        shards = files.shards(birds)[: config.limit_shards]
    merged = count_shards(config, shards, identity, make)
    report.check_scored(merged, f"--data {storage.public(config.data)}")
    result = FunnyBirdsResult(bird_scores(merged.table), merged)
    _write(config, birds, result)
    return result


def _subject(config: FunnyBirdsConfig, classes: int) -> ModelSubject:
    return ModelSubject(config, classes, config.maps, config.resize)


def _digest(root: str) -> str:
    """What the data set's own lists hold."""
    with naming(f"--data {storage.public(root)}"):
        return digests.of_text(" ".join(digests.of_file(storage.join(root, f)) for f in FILES))


def _write(config: FunnyBirdsConfig, birds: Birds, result: FunnyBirdsResult) -> None:
    scores, merged = result.scores, result.merged
    report.write_json(config.output, report.header(merged) | {"scores": scores})
    published = _published(config)
    rows = [(title, scores[name], published.get(name)) for name, title in TITLES.items()]
    images = scores["images"]
    unknown = {name[4:]: count for name, count in images.items() if name.startswith("ts: ")}
    left_out = f" ({report.in_words(unknown)})" if unknown else ""
    notes = [
        f"{images['all']:,} images ({report.in_words(merged.samples)}) of "
        f"{len(birds.classes)} classes; the paper has {paper.BIRD_IMAGES} of {paper.BIRD_CLASSES}.",
        f"CSDC is over {images['csdc']:,} images that are classified rightly, D over "
        f"{images['d']:,} with something irrelevant, SD over {images['sd']:,}, TS over "
        f"{images['ts']:,}{left_out}.",
        f"CSDC, PC, DC and D are at the threshold {scores['threshold']:.4f}, where "
        "(CSDC + PC + DC) / 3 + D is largest: it is chosen on the images that are scored.",
    ]
    if merged.rejects:
        notes.append(f"Images that could not be scored: {report.in_words(merged.rejects)}.")
    notes += report.gap_notes(merged)
    parts = [report.table(("0 to 1", "score", "paper"), rows), report.bullet(notes)]
    report.write_markdown(config.output, "FunnyBirds", parts)
    series = {
        name.upper(): (THRESHOLDS.tolist(), scores["curves"][name])
        for name in BY_THRESHOLD
        if scores["curves"][name] is not None
    }
    label = "share of the attribution that makes a part important"
    report.plot_lines(config.output, "thresholds.png", series, label, "score")


def _published(config: FunnyBirdsConfig) -> dict[str, float]:
    """The paper's row of the same method and settings, if it has one."""
    if not config.is_published:
        return {}
    for method, options, row in paper.FUNNYBIRDS:
        if (config.method, config.options) == (method, options):
            return dict(zip((*BY_THRESHOLD, "sd", "ts"), row, strict=True))
    return {}
