"""Students on pseudo-masks and on true masks, rule by rule."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from legrad.errors import near
from pipeline import storage
from pipeline.config import AnnotateConfig, ExecutionConfig, PromptConfig
from pipeline.config.presets import PRESETS, expand, settings_of
from pipeline.demo.bundle import key_of
from pipeline.demo.scenes import Scene
from pipeline.demo.sprites import load_sprites
from pipeline.errors import ConfigError, naming
from pipeline.loading import MaskDataset
from pipeline.loading.targets import Target
from pipeline.models.demo import ASSETS
from pipeline.outputs.semantic import SemanticConfig
from pipeline.run.annotation import annotate
from pipeline.student import scenes as drawing
from pipeline.student.training import BATCH, score, train

RULES: Mapping[str, SemanticConfig] = {
    "default": SemanticConfig(),
    "own-threshold": SemanticConfig(level="own"),
    "band-0.4-0.5": SemanticConfig(background="band", band=(0.4, 0.5)),
    "score": SemanticConfig(winner="score"),
}
"""default: the heat wins, above `semantic.LEVEL`; score: masks, the best score on top."""
TRUE = "true"
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class StudentConfig:
    """Train small networks on pseudo-masks of fresh demo scenes, and on the true masks."""

    output: str = "out/student"
    """Directory for the scenes, their masks and the scores."""
    scenes: int = 1500
    """Scenes to train on."""
    choose: int = 192
    """Scenes to choose a rule by."""
    held_out: int = 192
    """Scenes to score on, which choose nothing."""
    steps: int = 900
    """Steps of 16 images."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Of weights and data order: a network for each, on the true masks and by every rule."""
    rules: list[str] = field(default_factory=lambda: list(RULES))
    """How masks become one label per pixel: default, own-threshold, band-0.4-0.5, score."""
    presets: list[str] = field(default_factory=lambda: ["balanced", "fine"])
    """Also train on the masks of these presets, as they are written."""
    short: bool = False
    """A minute instead of half an hour: shows that it works, and says nothing about the rules."""
    font: str = ""
    """Noto Color Emoji, where it is not in the usual places."""
    threads: int = 0
    """CPU threads; 0 means all cores."""

    def __post_init__(self) -> None:
        for name in ("scenes", "choose", "held_out", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)}: must be at least 1")
        if self.scenes < BATCH:
            raise ConfigError(f"--scenes {self.scenes}: must be at least {BATCH}, a batch")
        for name in self.rules:
            if name not in RULES:
                raise ConfigError(f"--rules: there is no {name!r}{near(name, RULES)}")
        for name in self.presets:
            settings_of(name)
        if not self.rules or not self.seeds:
            raise ConfigError("--rules and --seeds: at least one of each")

    def shortened(self) -> StudentConfig:
        """What `short` stands for."""
        if not self.short:
            return self
        return dataclasses.replace(
            self,
            scenes=128,
            choose=32,
            held_out=32,
            steps=40,
            seeds=[0],
            rules=["default"],
            presets=[],
        )


@dataclass(frozen=True)
class WithTruth:
    """Puts the true labels of a scene where its pseudo-masks would be, and then does the same."""

    labels: Mapping[str, np.ndarray]
    then: v2.Transform

    def __call__(self, image: tv_tensors.Image, target: Target) -> Any:
        """Image and target with `semantic`."""
        truth = tv_tensors.Mask(torch.from_numpy(self.labels[target["key"]]))
        return self.then(image, target | {"semantic": truth})


def study(config: StudentConfig) -> dict[str, Any]:
    """Train and score every student; writes `metrics.json` and `metrics.md` into the output.

    Raises:
        FileNotFoundError: there is no font to draw scenes with.
    """
    config = config.shortened()
    if config.threads:
        torch.set_num_threads(config.threads)
    sprites = load_sprites(config.font or None)
    with naming(f"--output {config.output}"):
        Path(config.output).mkdir(parents=True, exist_ok=True)
    training = drawing.draw(sprites, drawing.TRAIN_SEED, config.scenes)
    sets = {
        "choose": drawing.labelled(drawing.draw(sprites, drawing.CHOOSE_SEED, config.choose)),
        "held_out": drawing.labelled(drawing.draw(sprites, drawing.SCORE_SEED, config.held_out)),
    }
    shards = str(Path(storage.absolute(config.output)) / f"scenes-{config.scenes}")
    drawing.write_shards(Path(shards), training)
    paper = _annotated(config, shards, "paper")
    masks = {name: paper for name in (TRUE, *config.rules)}
    masks |= {name: _annotated(config, shards, name) for name in config.presets}
    scores: dict[str, dict[str, list[float]]] = {}
    for name in masks:
        scores[name] = {which: [] for which in sets}
        for seed in config.seeds:
            dataset = _dataset(name, seed, shards, masks[name], training)
            student = train(dataset, config.steps, seed, _Progress(f"{name}, seed {seed}").say)
            for which, scenes in sets.items():
                scores[name][which].append(round(score(student, scenes), 4))
    results = {"settings": dataclasses.asdict(config), "scores": scores, "chosen": chosen(scores)}
    output = Path(config.output)
    (output / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    (output / "metrics.md").write_text(markdown(scores, config.seeds))
    return results


def chosen(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The rule that is best on the scenes for choosing."""
    rules = (name for name in scores if name not in (TRUE, *PRESETS))
    return max(rules, key=lambda name: mean(scores[name]["choose"]))


def markdown(scores: Mapping[str, Mapping[str, Sequence[float]]], seeds: Sequence[int]) -> str:
    """The table of scores: mIoU on the held-out scenes, and over that of the true masks."""
    true, best = mean(scores[TRUE]["held_out"]), chosen(scores)
    header = ["labels", *(f"seed {seed}" for seed in seeds), "mean", "over true", "to choose by"]
    rows = [header, ["---"] * len(header)]
    for name, of in scores.items():
        figures = [f"{value:.3f}" for value in of["held_out"]]
        part = mean(of["held_out"]) / true if true else float("nan")
        summary = [mean(of["held_out"]), part, mean(of["choose"])]
        star = " (chosen)" if name == best else ""
        rows.append([f"{name}{star}", *figures, *(f"{value:.3f}" for value in summary)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _annotated(config: StudentConfig, shards: str, preset: str) -> str:
    """Where the demo's masks of the scenes lie, by a preset; they are made where they are not yet.

    Scenes are known by their names below the output, so that flips do not depend on where that is.
    """
    folder = Path(storage.absolute(config.output))
    masks = str(folder / f"masks-{preset}-{config.scenes}")
    engine = ExecutionConfig(executor="local", threads=config.threads)
    prompts = PromptConfig(classes=str(ASSETS / "classes.yaml"))  # all, whatever is drawn
    annotate(
        expand(
            preset, AnnotateConfig, input=shards, output=masks, input_root=shards,
            engine=engine, prompts=prompts,
        ).absolute()
    )  # fmt: skip
    return masks


def _dataset(
    name: str, seed: int, shards: str, masks: str, training: Sequence[Scene]
) -> MaskDataset:
    """The training scenes with labels by a rule, or the true ones: the same scenes in one order.

    Of a preset, a pixel has the label of its mask: the heat that is stored is not refined.
    """
    then: Any = v2.RandomHorizontalFlip()
    if name == TRUE:
        truth = {key_of(index): drawing.label(scene) for index, scene in enumerate(training)}
        then = WithTruth(truth, then)
    dataset = MaskDataset(
        shards,
        masks,
        input_root=shards,
        semantic=RULES.get(name, SemanticConfig(winner="score")),
        size=(drawing.SIDE, drawing.SIDE),
        shuffle_buffer=len(training),
        seed=seed,
        transform=then,
    )
    assert dataset.labels == drawing.LABELS  # of the class file
    return dataset


class _Progress:
    """A line every `REPORT_SECONDS`: step, loss, seconds."""

    def __init__(self, title: str) -> None:
        self.title, self.started = title, time.monotonic()
        self.reported = self.started

    def say(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.reported >= REPORT_SECONDS:
            print(
                f"{self.title}: step {step}, loss {loss:.3f}, {now - self.started:.0f} s",
                flush=True,
            )
            self.reported = now
