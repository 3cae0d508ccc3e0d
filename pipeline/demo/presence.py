"""When a class is in a scene of the demo: `python -m pipeline.demo.presence tune`, and `show`.

`tune` makes the bundle's class file and calibration.json from scenes of their own; `show` says what
they are worth on the bundled scenes, none of which had a part in them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from jsonargparse import auto_cli

from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.levels import precision_recall
from pipeline.calibration.logistic import calibration_error, probabilities
from pipeline.calibration.stage import calibrate
from pipeline.calibration.write import CLASSES as CLASS_FILE
from pipeline.calibration.write import NUMBERS
from pipeline.config import AnnotateConfig, ExecutionConfig, PromptConfig
from pipeline.demo.bundle import write_scenes
from pipeline.demo.run import SHARDS
from pipeline.demo.scenes import make_scene
from pipeline.demo.sprites import CLASSES, load_sprites
from pipeline.evaluation.segmentation.truth import CocoTruth
from pipeline.inputs.calibration import load_calibration
from pipeline.inputs.classes import load_classes
from pipeline.inputs.tars import RawSample
from pipeline.models.demo import ASSETS
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.schema import heat_order
from pipeline.outputs.semantic import SemanticConfig, semantic_map
from pipeline.run.annotation import annotate

TUNE_SEED = 31
"""Stream of the scenes that levels are chosen on."""
SIDE, SHARD = 160, 250
PRECISION = 0.99
"""That the levels of the bundle's class file promise."""
ONLY_SCORES = 1.0
"""A level that no cosine exceeds: nothing is explained, and all scores are stored."""


@dataclass(frozen=True)
class Worth:
    """What a vocabulary's levels are worth on some scenes; all values in 0..1.

    Attributes:
        precision: part of the pairs above their level that are there.
        recall: part of the pairs that are there and above their level.
        calibration_error: expected, of the probabilities of all pairs.
    """

    precision: float
    recall: float
    calibration_error: float


def tune(output: Path = ASSETS, scenes: int = 1000, font: Path | None = None) -> None:
    """Choose levels on fresh scenes, and write the class file and calibration.json.

    Args:
        output: directory for the two.
        scenes: to draw.
        font: Noto Color Emoji, where it is not in the usual places.
    """
    sprites = load_sprites(font)
    with TemporaryDirectory() as name:
        folder = Path(name)
        shards = folder / "shards"
        shards.mkdir()
        for first in range(0, scenes, SHARD):
            numbers = range(first, min(first + SHARD, scenes))
            drawn = [make_scene(sprites, TUNE_SEED, number, SIDE) for number in numbers]
            write_scenes(shards / f"tune-{first // SHARD:05d}.tar", first, drawn)
        plain = folder / "plain.yaml"
        entries = [f"- {{id: {number}, name: {name}}}\n" for number, name in enumerate(CLASSES, 1)]
        plain.write_text("".join(entries))
        scored = str(folder / "scored")
        _annotate(str(shards), scored, vocabulary(str(plain), ONLY_SCORES))
        config = CalibrateConfig(
            predictions=scored,
            output=str(folder / "calibrated"),
            classes=str(plain),
            input=str(shards),
            precision=PRECISION,
        )
        for line in calibrate(config)[1]:
            print(line)
        for made in (CLASS_FILE, NUMBERS):
            shutil.copyfile(folder / "calibrated" / made, output / made)


def show(output: Path = Path("out/presence")) -> None:
    """Print how good the levels are on the bundled scenes, and the labels that come of them.

    Args:
        output: directory for the runs; what is done of them is not done again.
    """
    by_level, by_label = str(output / "vocabulary"), str(output / "labels")
    levels = vocabulary(str(ASSETS / CLASS_FILE))
    _annotate(str(SHARDS), by_level, levels)
    _annotate(str(SHARDS), by_label, PromptConfig(classes=str(ASSETS / CLASS_FILE)))
    worth = measure(by_level)
    print(
        f"{len(CLASSES)} classes, bundled scenes: precision {worth.precision:.4f}, recall "
        f"{worth.recall:.4f}, expected calibration error {worth.calibration_error:.4f}"
    )
    found, named = semantic_miou(by_level), semantic_miou(by_label)
    print(
        f"mIoU of {len(CLASSES)} classes and background: {found:.4f}, with true labels "
        f"{named:.4f}: {found / named:.2%} of it"
    )


def vocabulary(classes: str, presence: float | None = None) -> PromptConfig:
    """All of the demo's classes, each above its own level unless one is given for all."""
    return PromptConfig("vocabulary", classes=classes, top_k=len(CLASSES), presence=presence)


def measure(run: str) -> Worth:
    """What the levels of the bundle's class file say about the scores of a run over the bundle.

    Args:
        run: output with the scores of all classes, be they of masks or of what is absent.
    """
    predictions = Predictions(run)
    curve = load_calibration(str(ASSETS / NUMBERS), predictions.identity)
    assert curve is not None
    level = {
        category.name: category.presence for category in load_classes(str(ASSETS / CLASS_FILE))
    }
    score, present, above = _scores(predictions, level)
    precision, recall = precision_recall(above, present, 0)
    return Worth(precision, recall, calibration_error(probabilities(curve, score), present))


def _scores(
    predictions: Predictions, level: dict[str, float | None]
) -> tuple[Float64[np.ndarray, " pair"], Bool[np.ndarray, " pair"], Bool[np.ndarray, " pair"]]:
    """Of every pair of image and class: its score, whether it is there, and above its level."""
    truth = CocoTruth(str(ASSETS / "instances.json"))
    pairs: list[tuple[float, bool, bool]] = []
    for commit in predictions.commits:
        shard = predictions.read(commit)
        rows: list[dict[str, Any]] = shard.annotations.to_pylist()
        keys = {image["sample_index"]: image["key"] for image in shard.images.to_pylist()}
        rows += [
            row | {"key": image["key"]}
            for image in shard.images.to_pylist()
            for row in image["absent"]
        ]
        known = {key: truth(RawSample(0, key, {})) for key in keys.values()}
        for row in rows:
            of_image, least = known[row["key"]], level[row["category"]]
            assert of_image is not None and least is not None  # no scene is empty
            there = row["category"] in of_image.names
            pairs.append((row["score"], there, row["score"] > least))
    score, present, above = (np.array(column) for column in zip(*pairs, strict=True))
    return score, present, above


def semantic_miou(run: str) -> float:
    """Mean IoU of all classes and background over all pixels of the bundle, 0..1.

    A pixel belongs to the hottest mask there, of whatever classes the run has found.
    """
    truth, predictions = CocoTruth(str(ASSETS / "instances.json")), Predictions(run)
    config = SemanticConfig()
    labels = config.labels(CLASSES)
    size = len(labels) + 1
    confusion = np.zeros((size, size), np.int64)
    for commit in predictions.commits:
        shard = predictions.read(commit)
        order, rows = heat_order(shard.annotations), shard.annotations.to_pylist()
        for image in shard.images.to_pylist():
            known = truth(RawSample(0, image["key"], {}))
            assert known is not None
            expected = np.zeros(known.ignored.shape, np.int64)
            for name, mask in zip(known.names, known.masks, strict=True):
                expected[mask] = labels[name]
            mine = [row for row in rows if row["sample_index"] == image["sample_index"]]
            shape = (image["height"], image["width"])
            found = semantic_map(mine, labels, shape, config, order)
            counts = np.bincount(expected.ravel() * size + found.ravel(), minlength=size**2)
            confusion += counts.reshape(size, size)
    right = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - right
    return float((right[union > 0] / union[union > 0]).mean())


def _annotate(shards: str, output: str, prompts: PromptConfig) -> None:
    engine = ExecutionConfig(executor="local")
    config = AnnotateConfig(input=shards, output=output, prompts=prompts, engine=engine)
    annotate(config.absolute())


if __name__ == "__main__":
    auto_cli([tune, show])
