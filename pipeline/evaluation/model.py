"""A model that is evaluated, as all stages use it: explainers over it, and a choice of class."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

import legrad
from legrad.towers.open import open_tower
from pipeline.evaluation.class_names import ClassNames
from pipeline.evaluation.config import EvaluationConfig
from pipeline.models.method import make_explainer


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
    """A model with explainers over it. One thread at a time may use it: hold `lock`.

    Attributes:
        lock: whoever calls the model has it.
        device: where the model is.
        size: side of its input.
    """

    size: int

    def __init__(self, config: EvaluationConfig, model: nn.Module, device: torch.device) -> None:
        """Take a model that is on `device`."""
        self.lock = threading.Lock()
        self.device = device
        self._config, self._model = config, model

    def explainer(self, **changes: Any) -> legrad.Explainer:
        """The explainer of the configuration, with other `MethodConfig` settings if wanted.

        Raises:
            ConfigError: the method cannot explain this model, or not with these settings.
        """
        config = replace(self._config, **changes)
        budget = config.engine.memory_budget
        return make_explainer(config, self._model, self.caption, self.text, budget)

    @property
    def depth(self) -> int:
        """Blocks of the image tower."""
        return len(open_tower(self._model).blocks)

    @abstractmethod
    def caption(self, text: str) -> Float32[Tensor, " embed"]:
        """L2-normalised embedding of a text as it is, without templates.

        Raises:
            ConfigError: the model does not take texts.
        """

    @abstractmethod
    def text(self, names: Sequence[str]) -> Float32[Tensor, "name embed"]:
        """L2-normalised embeddings of class names, put into the templates.

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
