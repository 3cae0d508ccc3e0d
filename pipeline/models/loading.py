"""Loading the model of a run: a CLIP, or a supervised classifier."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from legrad.towers.attention import fused_output
from legrad.towers.open import open_tower
from pipeline.config import DEFAULT_TEMPLATES, ModelConfig, RunConfig
from pipeline.errors import ConfigError
from pipeline.models.classifier import (
    class_layer,
    classifier_skeleton,
    is_classifier,
    load_classifier,
)
from pipeline.models.clip import choose_device, clip_skeleton, load_audio, load_model
from pipeline.models.loaded import DTYPES, ClassHead, LoadedModel
from pipeline.models.preprocess import Preprocess
from pipeline.models.sounds import SoundEncoder
from pipeline.models.text import TextEncoder


def load(config: RunConfig) -> LoadedModel:
    """The model that `--model.name` names.

    Raises:
        ModelError: the model or its weights do not load.
        ConfigError: templates are given to a model that takes no texts.
    """
    kind = LoadedClassifier if is_classifier(config.model.name) else LoadedClip
    return kind(config)


def depth_of(config: ModelConfig) -> int:
    """Blocks of a model's image tower; no weights are loaded.

    Raises:
        ModelError: there is no such model.
    """
    skeleton = classifier_skeleton if is_classifier(config.name) else clip_skeleton
    return len(open_tower(skeleton(config.name)).blocks)


class LoadedClip(LoadedModel):
    """A CLIP: its classes are texts, and any text can be looked for."""

    model: Any

    def __init__(self, config: RunConfig) -> None:
        """Load the model.

        Raises:
            ModelError: the model or its weights do not load, or it is not a CLIP.
        """
        device, dtype = choose_device(config.engine.device), DTYPES[config.model.precision]
        model = load_model(config.model, device, dtype)
        preprocess = Preprocess.of_clip(model, config.sized_model().image_size)
        super().__init__(config, model, device, dtype, preprocess)
        self.encode_text = TextEncoder(
            model,
            config.model.name,
            config.name_templates,
            lambda sounds: self.encode_sound(sounds),
        )

    @functools.cached_property
    def encode_sound(self) -> SoundEncoder:
        """What embeds sounds; it is loaded when it is asked for first.

        Raises:
            ModelError: the weights do not load.
            ConfigError: the model has no audio tower.
        """
        return SoundEncoder(load_audio(self.config.model), self.device)

    def text(self, names: Sequence[str]) -> Float32[Tensor, "name embed"]:
        """L2-normalised embeddings of class names, put into the templates."""
        return self.encode_text.names(names).float()

    def caption(self, text: str) -> Float32[Tensor, " embed"]:
        """L2-normalised embedding of a text as it is, without templates."""
        return self.encode_text.caption(text).float()

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The whole image at the model's size, or at that of the largest view."""
        return self._preprocess.squash(pixels, self.largest)

    def fit(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The image as the model's own preprocessing has it: zero-shot accuracy is measured so."""
        return self._preprocess.fit(pixels)

    @torch.inference_mode()
    def embed(self, images: Float[Tensor, "batch 3 h w"]) -> Float32[Tensor, "batch embed"]:
        """L2-normalised image embeddings."""
        embeddings: Tensor = self.model.encode_image(images, normalize=True)
        return embeddings.float()

    @torch.inference_mode()
    def patches(
        self, images: Float[Tensor, "batch 3 h w"]
    ) -> Float32[Tensor, "batch row column embed"]:
        """Patch tokens of the last layer in the joint space, read as the class token is.

        They are L2-normalised. Of images of another size than the model's own, the positional
        embedding is resized, as for every explainer.
        """
        tower = open_tower(self.model)
        grid, tokens = tower.grid(images), tower.embed(images)
        for block in tower.blocks_on(grid):
            tokens = fused_output(block, tokens)
        patches = tower.head.embed(tokens[:, tower.prefix_count :].to(tower.wide))
        return patches.view(len(images), *grid, -1).float()

    def head(self, ids: Sequence[int], names: Sequence[str]) -> ClassHead:
        """The most similar name, zero-shot."""
        rows = self.text(names)
        return ClassHead(rows, rows.new_zeros(len(rows)))


class LoadedClassifier(LoadedModel):
    """A timm classifier: it knows the classes of its head, and no texts."""

    model: Any

    def __init__(self, config: RunConfig) -> None:
        """Load the model.

        Raises:
            ModelError: the model or its weights do not load.
            ConfigError: templates are asked for.
        """
        if tuple(config.name_templates) != DEFAULT_TEMPLATES:
            raise ConfigError(
                f"--templates {config.name_templates}: the classes of {config.model.name} are rows "
                "of its head, not texts"
            )
        device, dtype = choose_device(config.engine.device), DTYPES[config.model.precision]
        sized = config.sized_model()
        model: Any = load_classifier(sized, device, dtype)
        given = sized.weight_settings().values
        preprocess = Preprocess.of_classifier(model, sized.image_size, given)
        super().__init__(config, model, device, dtype, preprocess)

    def caption(self, text: str) -> Float32[Tensor, " embed"]:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"--empty_text {text!r}: {self.config.model.name} takes no texts")

    def text(self, names: Sequence[str]) -> Float32[Tensor, "name embed"]:
        """There are none.

        Raises:
            ConfigError: always.
        """
        options = ", ".join(self.config.text_options())
        raise ConfigError(f"--options {options}: {self.config.model.name} takes no texts")

    def fit(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The whole image; see `Preprocess.of_classifier`."""
        return self._preprocess.squash(pixels)

    @torch.inference_mode()
    def embed(self, images: Float[Tensor, "batch 3 h w"]) -> Float32[Tensor, "batch embed"]:
        """What the head is applied to."""
        features = self.model.forward_features(images)
        embeddings: Tensor = self.model.forward_head(features, pre_logits=True)
        return embeddings.float()

    def head(self, ids: Sequence[int], names: Sequence[str]) -> ClassHead:
        """The rows of the head, which are the classes in ascending order of their ids.

        Raises:
            ConfigError: there are not as many classes.
        """
        layer = class_layer(self.model, self.config.model.name)
        if len(ids) != layer.out_features:
            raise ConfigError(
                f"--classes: {len(ids)} classes, but the head of "
                f"{self.config.model.name} has {layer.out_features}"
            )
        rank = {number: row for row, number in enumerate(sorted(ids))}
        order = [rank[number] for number in ids]
        rows = layer.weight.float()[order]
        bias = rows.new_zeros(len(rows)) if layer.bias is None else layer.bias.float()[order]
        return ClassHead(rows, bias)
