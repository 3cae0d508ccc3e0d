"""The model of a run, loaded: what annotation, every evaluation and the demo make maps with."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

import legrad
from legrad.towers.open import open_tower
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.models.halving import halves, in_halves
from pipeline.models.malloc import keep_freed_memory
from pipeline.models.method import make_explainer
from pipeline.models.preprocess import Preprocess

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


@dataclass(frozen=True)
class Query:
    """An image and what to look for in it.

    Attributes:
        pixels: RGB, at the model's size, or larger for views of larger scales.
        text: L2-normalised embeddings, or rows of a head.
    """

    pixels: UInt8[Tensor, "3 size size"]
    text: Float32[Tensor, "text embed"]


@dataclass(frozen=True)
class Explanation:
    """The maps and scores of the texts of a `Query`.

    Attributes:
        raw: the map of each text on the patch grid.
        scores: ⟨text, embedding of the image⟩; a cosine where both have unit length.
        degraded: the batch had to be made smaller for want of memory, so that another run may give
            other last digits.
    """

    raw: Float[Tensor, "text rows columns"]
    scores: Float32[Tensor, " text"]
    degraded: bool = False


class LoadedModel(ABC):
    """A model on its device, with explainers over it. One thread at a time: hold `lock`.

    Attributes:
        lock: whoever calls the model has it.
        device: where the model is.
        dtype: of its weights and input.
        size: side of its input, in pixels.
        largest: side of its input at the largest of the views' scales.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        preprocess: Preprocess,
    ) -> None:
        """Take a model that is on `device`."""
        if device.type == "cpu":
            keep_freed_memory()
        self.lock = threading.Lock()
        self.device, self.dtype = device, dtype
        self.config, self.model = config, model
        self._preprocess, self.size = preprocess, preprocess.size
        self.largest = round(max(config.views.scales) * self.size)

    def explainer(self, **changes: Any) -> legrad.Explainer:
        """The explainer of the configuration, with other `MethodConfig` settings if wanted.

        Raises:
            ConfigError: the method cannot explain this model, not with these settings, or not at
                this size.
        """
        config = replace(self.config, **changes)
        explainer = make_explainer(
            config, self.model, self.caption, self.text, config.engine.memory_budget, self.size
        )
        self.check_size(explainer.encode)
        return explainer

    def check_size(self, look: Callable[[Tensor], object]) -> None:
        """Find out now, and not at the first image, that the model takes none of the size.

        Args:
            look: takes a batch of images.

        Raises:
            ConfigError: it does not take this size.
        """
        side = self.config.sized_model().image_size
        if not side and self.config.views.plain:
            return
        image = torch.zeros(1, 3, self.size, self.size, device=self.device, dtype=self.dtype)
        try:
            look(image)
        except ValueError as error:
            flag = f"--model.image_size {side}" if side else "--views"
            raise ConfigError(f"{flag}: {error}") from error

    def explain(self, explainer: legrad.Explainer, queries: Sequence[Query]) -> list[Explanation]:
        """Explain a batch with one forward pass, or in halves where memory does not suffice."""
        parts = in_halves(
            list(enumerate(queries)),
            lambda numbered: self._explain(explainer, [query for _, query in numbered]),
            _halve,
            self.device,
        )
        explanations: list[list[Explanation]] = [[] for _ in queries]
        for (number, _), found, degraded in parts:
            explanations[number].append(replace(found, degraded=degraded))
        return [_joined(of_query) for of_query in explanations]

    def _explain(self, explainer: legrad.Explainer, queries: Sequence[Query]) -> list[Explanation]:
        images = self.images(torch.stack([query.pixels for query in queries]))
        text = torch.cat([query.text for query in queries]).to(images.device)
        counts = [len(query.text) for query in queries]
        owner = torch.arange(len(queries), device=images.device)
        owner = owner.repeat_interleave(torch.tensor(counts, device=images.device))
        embedding, raw = explainer.explain(images, text, owner)
        scores = (embedding[owner] * text).sum(-1)
        return [
            Explanation(maps, of_image)
            for maps, of_image in zip(
                torch.split_with_sizes(raw, counts),
                torch.split_with_sizes(scores, counts),
                strict=True,
            )
        ]

    @property
    def depth(self) -> int:
        """Blocks of the image tower."""
        return len(open_tower(self.model).blocks)

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

    def images(self, pixels: UInt8[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 h w"]:
        """Model input of pixels."""
        return self._preprocess.normalise(pixels, self.device, self.dtype)

    @abstractmethod
    def embed(self, images: Float[Tensor, "batch 3 h w"]) -> Float32[Tensor, "batch embed"]:
        """Image embeddings, as the model itself makes them."""

    @abstractmethod
    def head(self, ids: Sequence[int], names: Sequence[str]) -> ClassHead:
        """The choice among classes, each with its number and its name.

        Raises:
            ConfigError: the model has other classes.
        """


def _halve(numbered: Sequence[tuple[int, Query]]) -> list[list[tuple[int, Query]]]:
    """Two halves of the queries, or of the texts of a single one; nothing where that is all."""
    if len(numbered) > 1:
        return halves(numbered)
    ((number, query),) = numbered
    return [[(number, replace(query, text=torch.stack(half)))] for half in halves(list(query.text))]


def _joined(parts: Sequence[Explanation]) -> Explanation:
    """The explanation to a query that was asked in parts."""
    if len(parts) == 1:
        return parts[0]
    raw, scores = (torch.cat([getattr(p, name) for p in parts]) for name in ("raw", "scores"))
    return Explanation(raw, scores, degraded=True)


def heatmaps(
    explainer: legrad.Explainer, raw: Float[Tensor, "map rows columns"], size: tuple[int, int]
) -> Float32[Tensor, "map height width"]:
    """Raw maps at pixel size, 0..1, by the steps that the explainer asks for in their order."""
    return legrad.heatmap(raw, size, order=explainer.heat_order)
