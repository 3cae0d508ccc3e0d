"""A model that is evaluated, as all stages use it: explainers over it, and a choice of class."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

import legrad
from legrad.towers import open_tower
from pipeline.config import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.labelled import ClassNames


@dataclass(frozen=True)
class ClassHead:
    """How a model chooses one of some classes: the highest ⟨row, embedding⟩ + bias.

    Attributes:
        rows: one per class; what an explainer takes as the text of the class.
        bias: one per class; a constant, which no map depends on.
    """

    rows: Float32[Tensor, "name embed"]
    bias: Float32[Tensor, " name"]

    def choose(self, embeddings: Float32[Tensor, "image embed"]) -> list[int]:
        """Position of the class of every image."""
        chosen: list[int] = (embeddings @ self.rows.T + self.bias).argmax(1).tolist()
        return chosen


class EvaluatedModel(ABC):
    """A model with explainers over it. One thread at a time may use it: hold `turn`.

    Attributes:
        turn: whoever calls the model has this lock.
        device: where the model is.
        size: side of its input.
    """

    size: int

    def __init__(self, config: EvaluationConfig, model: nn.Module, device: torch.device) -> None:
        """Take a model that is on `device`."""
        self.turn = threading.Lock()
        self.device = device
        self._config, self._model = config, model

    def explainer(self, **changes: Any) -> legrad.Explainer:
        """The explainer of the configuration, with other options or `layers` if wanted.

        Raises:
            ConfigError: the method cannot explain this model, or not with these options.
        """
        config = self._config
        settings = {
            "layers": config.layers,
            "engine": config.algorithm,
            "memory_budget": config.engine.memory_budget,
            **config.options,
            **changes,
        }
        if config.empty_text:
            settings["empty_text"] = self.empty_text()
        try:
            return legrad.build(config.method, self._model, **settings)
        except ValueError as error:
            raise ConfigError(f"--method {config.method}: {error}") from error

    @property
    def depth(self) -> int:
        """Blocks of the image tower."""
        return len(open_tower(self._model).blocks)

    @abstractmethod
    def empty_text(self) -> Float32[Tensor, " embed"]:
        """Embedding of the text without content.

        Raises:
            ConfigError: the model does not take texts.
        """

    @abstractmethod
    def fit(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The image at the model's size, as the accuracy of such a model is measured."""

    @abstractmethod
    def images(self, pixels: UInt8[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 h w"]:
        """Model input of pixels."""

    @abstractmethod
    def embed(self, images: Float[Tensor, "batch 3 h w"]) -> Float32[Tensor, "batch embed"]:
        """Image embeddings, as the model itself makes them."""

    @abstractmethod
    def head(self, classes: ClassNames) -> ClassHead:
        """The choice among some classes.

        Raises:
            ConfigError: the model has other classes.
        """


def heatmaps(
    explainer: legrad.Explainer, raw: Float[Tensor, "map rows columns"], size: tuple[int, int]
) -> Float32[Tensor, "map height width"]:
    """Raw maps at pixel size, 0..1, normalised when the explainer says."""
    return legrad.heatmap(raw, size, normalise_first=explainer.normalise_before_upsampling)
