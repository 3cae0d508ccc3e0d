"""A model that is evaluated: images and class names in, heatmaps and similarities out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

import legrad
from legrad.towers import open_tower
from pipeline.evaluation.config import EvaluationConfig
from pipeline.explanation import DTYPES
from pipeline.images import Preprocess
from pipeline.method import make_explainer
from pipeline.models import choose_device, load_model
from pipeline.prompts import Prompt
from pipeline.text import TextEncoder


class EvaluatedModel:
    """A CLIP with explainers over it. One thread at a time may use it: hold `turn`.

    Attributes:
        turn: whoever calls the model has this lock.
        device: where the model is.
        size: side of its input.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        """Load the model.

        Raises:
            ModelError: the model or its weights do not load.
        """
        self.turn = threading.Lock()
        self.device = choose_device(config.engine.device)
        self._config, self._dtype = config, DTYPES[config.model.precision]
        self._model = load_model(config.model, self.device, self._dtype)
        self._preprocess = Preprocess(self._model, config.sized_model().image_size)
        self.size = self._preprocess.size
        self._encode_text = TextEncoder(self._model, config.model.name, config.templates)

    def explainer(self, **changes: Any) -> legrad.Explainer:
        """The explainer of the configuration, with other `MethodConfig` settings if wanted.

        Raises:
            ConfigError: the method cannot explain this model, or not with these settings.
        """
        config = replace(self._config, **changes)
        embed = self._encode_text.caption
        return make_explainer(config, self._model, embed, config.engine.memory_budget)

    def text(self, names: Sequence[str]) -> Float32[Tensor, "name embed"]:
        """L2-normalised embeddings of class names, put into the templates."""
        return self._embed([Prompt(i, name, None, (name,)) for i, name in enumerate(names)])

    def _embed(self, prompts: list[Prompt]) -> Float32[Tensor, "prompt embed"]:
        embeddings: Tensor = self._encode_text(prompts)[0].float()
        return embeddings

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The whole image at the model's size."""
        return self._preprocess.squash(pixels)

    def crop(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The middle of the image at the model's size, as zero-shot accuracy is measured."""
        resized = transforms.resize(
            pixels, [self.size], self._preprocess.interpolation, antialias=True
        )
        cropped: Tensor = transforms.center_crop(resized, [self.size, self.size])
        return cropped

    @property
    def depth(self) -> int:
        """Blocks of the image tower."""
        return len(open_tower(self._model).blocks)

    @torch.inference_mode()
    def embed(self, images: Float[Tensor, "batch 3 h w"]) -> Float32[Tensor, "batch embed"]:
        """L2-normalised image embeddings, as the model itself makes them."""
        embeddings: Tensor = self._model.encode_image(images, normalize=True)
        return embeddings.float()

    def images(self, pixels: UInt8[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 h w"]:
        """Model input of pixels."""
        return self._preprocess.normalise(pixels, self.device, self._dtype)


def heatmaps(
    explainer: legrad.Explainer, raw: Float[Tensor, "map rows columns"], size: tuple[int, int]
) -> Float32[Tensor, "map height width"]:
    """Raw maps at pixel size, 0..1, normalised when the explainer says."""
    return legrad.heatmap(raw, size, normalise_first=explainer.normalise_before_upsampling)
