"""The maps of a picture: for each image and model a row, for each layer or method a column."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

import legrad
from pipeline import storage
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError, Reject, naming
from pipeline.evaluation.config import EvaluationConfig
from pipeline.figures.config import FigureConfig, LayersConfig, MethodsConfig
from pipeline.inputs.images import decode
from pipeline.log import Event, say
from pipeline.models.loaded import Query, heatmaps
from pipeline.models.loading import LoadedClip
from pipeline.outputs.preview import CELL

ALL = "all layers"
TALLEST = 2
"""Of an image, in its width: more of it is squashed."""

Heat: TypeAlias = Float32[np.ndarray, "height width"]
Column: TypeAlias = tuple[str, legrad.Explainer | None]
"""What a map is called, and what makes it; None where there is none of this model."""


@dataclass(frozen=True)
class Row:
    """An image, and what one model finds in it.

    Attributes:
        model: that has found it, and its weights.
        prompt: that was looked for.
        pixels: of the image, as wide as a cell of the picture.
        heats: title → heat at the same size, 0..1; None where the method has no form.
    """

    model: str
    prompt: str
    pixels: UInt8[np.ndarray, "height width 3"]
    heats: dict[str, Heat | None]


def rows_of(config: LayersConfig | MethodsConfig) -> list[Row]:
    """The rows, by image and then by model.

    Raises:
        ConfigError: an image cannot be read, or a method has no form for any of the models.
        ModelError: a model does not load.
    """
    images = {location: read_image(config, location) for location, _ in config.pairs}
    by_model = []
    for number in range(len(config.models)):
        model = LoadedClip(_settings(config, number))
        columns = list(_columns(config, model))
        by_model.append(
            [_row(model, columns, prompt, images[location]) for location, prompt in config.pairs]
        )
    return [row for of_pair in zip(*by_model, strict=True) for row in of_pair]


def read_image(config: FigureConfig, location: str) -> UInt8[Tensor, "3 height width"]:
    """RGB pixels of an image file.

    Raises:
        ConfigError: it is not there, or is no image.
    """
    shown = f"--images {storage.public(location)}"
    with naming(shown):
        data = storage.read_bytes(location)
    try:
        return decode(data, config.max_pixels)
    except Reject as reject:
        raise ConfigError(f"{shown}: {reject}") from reject


def spread(depth: int, most: int) -> list[int]:
    """Some of the blocks 0 … depth - 1, evenly spread: the last, and with two or more the first."""
    if most == 1:
        return [depth - 1]
    return sorted({round(i) for i in np.linspace(0, depth - 1, min(most, depth))})


def _settings(config: LayersConfig | MethodsConfig, number: int) -> EvaluationConfig:
    """What a model is loaded with."""
    if isinstance(config, MethodsConfig):
        return config.of_method(config.models[number], config.methods[0])
    return config.run(config.models[number], method=config.method, options=config.options)


def _columns(config: LayersConfig | MethodsConfig, model: LoadedClip) -> Iterator[Column]:
    if isinstance(config, LayersConfig):
        for layer in spread(model.depth, config.most):
            yield f"layer {layer + 1}", model.explainer(layers=[layer])
        yield ALL, model.explainer()
        return
    for name in config.methods:
        yield name, _explainer(config, model, name)


def _explainer(config: MethodsConfig, model: LoadedClip, name: str) -> legrad.Explainer | None:
    """The explainer of a method; None, with a line that says why, where the model has none.

    Raises:
        ConfigError: it has none, and nothing else is to be drawn.
    """
    try:
        return model.explainer(method=name, options=config.options.get(name, {}))
    except ConfigError as error:
        if len(config.models) == 1 and len(config.methods) == 1:
            raise
        line = f"not drawn: {model.config.model.name}: {error}"
        say(Event("not_drawn", line, "warning", model=model.config.model.name, method=name))
        return None


def _row(
    model: LoadedClip,
    columns: Sequence[Column],
    prompt: str,
    image: UInt8[Tensor, "3 height width"],
) -> Row:
    pixels = _shown(image)
    size = (pixels.shape[0], pixels.shape[1])
    query = Query(model.squash(image), model.text([prompt]))
    heats: dict[str, Heat | None] = {}
    for title, explainer in columns:
        if explainer is None:
            heats[title] = None
            continue
        with model.lock:
            (explanation,) = model.explain(explainer, [query])
        heat = heatmaps(explainer, explanation.raw, size)
        heats[title] = heat[0].cpu().numpy()
    return Row(_label(model.config.model), prompt, pixels, heats)


def _label(model: ModelConfig) -> str:
    """A model and its weights, of a file its name."""
    if model.in_place:
        return model.name
    return f"{model.name}, {posixpath.basename(storage.public(model.pretrained))}"


def _shown(image: UInt8[Tensor, "3 height width"]) -> UInt8[np.ndarray, "rows columns 3"]:
    """The image, as wide as a cell."""
    height = min(TALLEST * CELL, max(1, round(image.shape[1] * CELL / image.shape[2])))
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    shown: np.ndarray = np.array(picture.resize((CELL, height), Image.Resampling.BILINEAR))
    return shown
