"""What a picture of maps can be told; the text under a field is its help text."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any

import legrad
from pipeline.config import (
    DEFAULT_TEMPLATES,
    ExecutionConfig,
    ModelConfig,
    RunConfig,
    check_templates,
)
from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.inputs.classes import is_text

PAPERS = (
    *("rollout", "raw_attention", "gradcam", "attention_cam", "chefer_cam"),
    *("text_span", "legrad"),
)
"""The methods of the paper's own comparisons."""
MOST_ROWS = 120
"""Of up to 452 pixels: a picture of 54,000 is as high as many programs open."""


@dataclass(frozen=True)
class FigureConfig:
    """Maps of images and prompts."""

    images: list[str] | str = ""
    """Image files: paths or URIs."""
    prompts: list[str] | str = ""
    """What to look for, one for each image; or one for all images, or several in one image."""
    output: str = ""
    """Path or URI of the picture, a .png."""
    models: list[ModelConfig] = field(default_factory=lambda: [ModelConfig()])
    """CLIPs, each with the settings of --model elsewhere: '[{name: NAME, pretrained: WEIGHTS}]'."""
    templates: list[str] = field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    """Sentences that a prompt is put into; '["{}"]' leaves it as it is."""
    device: str = "auto"
    """Device of the models: auto takes a GPU where there is one."""
    max_pixels: int = RunConfig.max_pixels
    """Images with more pixels than this are refused unread (decompression bombs)."""

    def __post_init__(self) -> None:
        if not self.images or not self.prompts:
            raise ConfigError("--images and --prompts are needed: files, and what to look for")
        for flag, values in (("--images", self.images), ("--prompts", self.prompts)):
            for value in listed(values):
                if not is_text(value):
                    raise ConfigError(f"{flag}: {value!r} says nothing; leave it out")
        if posixpath.splitext(self.output)[1] != ".png":
            raise ConfigError(f"--output {self.output}: has to be the name of a .png")
        if not self.models:
            raise ConfigError("--models []: name at least one")
        check_templates("--templates", self.templates)
        counts = len(listed(self.images)), len(listed(self.prompts))
        if counts[0] != counts[1] and 1 not in counts:
            raise ConfigError(
                f"--images has {counts[0]} files and --prompts {counts[1]} texts: give one prompt "
                "for each image, or one of either"
            )
        if (rows := max(counts) * len(self.models)) > MOST_ROWS:
            raise ConfigError(
                f"--images, --prompts and --models make {rows} rows, and a picture has {MOST_ROWS} "
                "at the most; make several"
            )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every image with its prompt, in order."""
        images, prompts = listed(self.images), listed(self.prompts)
        count = max(len(images), len(prompts))
        return [
            (images[i % len(images)], prompts[i % len(prompts)])  # one of either is for all
            for i in range(count)
        ]

    def run(self, model: ModelConfig, **method: Any) -> EvaluationConfig:
        """The settings that one of the models is loaded with."""
        engine = ExecutionConfig(device=self.device)
        return EvaluationConfig(
            model=model,
            templates=self.templates,
            engine=engine,
            max_pixels=self.max_pixels,
            **method,
        )


@dataclass(frozen=True)
class LayersConfig(FigureConfig):
    """Maps of single layers: a row for each image and model (figure 5 of the paper)."""

    method: str = "legrad"
    """Explainability method (a name in legrad.METHODS)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the method, as docs/methods.md lists them."""
    most: int = 12
    """Layers at the most, evenly spread, the first and the last among them; the map of all layers
    comes last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most < 1:
            raise ConfigError(f"--most {self.most}: must be at least 1")
        self.run(self.models[0], method=self.method, options=self.options)


@dataclass(frozen=True)
class MethodsConfig(FigureConfig):
    """Maps of several methods: a row for each image and model (figures 7 and 11 of the paper)."""

    methods: list[str] = field(default_factory=lambda: list(PAPERS))
    """Methods, in the order of the columns."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of some of them: '{attention_cam: {form: te}}'."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.methods:
            raise ConfigError("--methods []: name at least one")
        for name in self.methods:
            if self.methods.count(name) > 1:
                raise ConfigError(f"--methods: {name} is there twice; every method is a column")
        for name in self.options:
            if name not in self.methods or not isinstance(self.options[name], dict):
                raise ConfigError(
                    f"--options: {name} has to be one of --methods, with a mapping of its options"
                )
        for name in self.methods:
            self.of_method(self.models[0], name)

    def of_method(self, model: ModelConfig, name: str) -> EvaluationConfig:
        """The settings of a method.

        Raises:
            ConfigError: there is no such method, or it has no such options.
        """
        if name not in legrad.METHODS:
            raise ConfigError(f"--methods {name}: known: {', '.join(legrad.METHODS)}")
        return self.run(model, method=name, options=self.options.get(name, {}))


def listed(value: list[str] | str) -> list[str]:
    """One or several as several."""
    return [value] if isinstance(value, str) else value
