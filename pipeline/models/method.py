"""The explainer that the settings of a run ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

import legrad
from legrad.towers.open import open_tower
from pipeline.config import MethodConfig
from pipeline.errors import ConfigError
from pipeline.inputs.option_texts import names_of

EMPTY_TEXT = "a photo of a"
"""The dummy text in the code of LeGrad's authors; their paper (eq. 13) has "a photo of"."""

Embed = Callable[[str], Float[Tensor, " embed"]]
EmbedNames = Callable[[Sequence[str]], Float[Tensor, "name embed"]]


def make_explainer(
    config: MethodConfig,
    model: nn.Module,
    embed: Embed,
    embed_names: EmbedNames,
    memory_budget: int,
    side: int | None = None,
) -> legrad.Explainer:
    """Build the explainer of a model.

    Args:
        config: what is asked for.
        model: what is explained, in its final type and place.
        embed: the L2-normalised embedding of a text as it is, without templates.
        embed_names: the L2-normalised embeddings of class names, put into templates.
        memory_budget: bytes that LeGrad's temporaries may take.
        side: pixels of a side of the plain view, where images may come larger for other scales;
            None: it is that of the images.

    Raises:
        ConfigError: the method cannot explain this model, or not with these settings.
    """
    texts = {option: embed_names(names) for option, names in names_of(config).items()}
    try:
        empty = empty_text(config, model)
        explainer = legrad.build(
            config.method,
            model,
            config.layers,
            engine=config.algorithm,
            memory_budget=memory_budget,
            empty_text=embed(empty) if empty else None,
            empty_threshold=config.empty_threshold,
            **config.options | texts,
        )
    except ValueError as error:
        raise ConfigError(f"--method {config.method}: {error}") from error
    views = config.views
    if views.plain:
        return explainer
    size = None if side is None else (side, side)
    try:
        return legrad.Views(
            explainer, views.shifts, flip=views.flip, scales=views.scales, size=size
        )
    except ValueError as error:
        raise ConfigError(f"--views with --method {config.method}: {error}") from error


def empty_text(config: MethodConfig, model: nn.Module) -> str:
    """The text that `--empty_text` stands for with this model; empty for no correction.

    Raises:
        UnsupportedModelError: the model's tower cannot be explained (a `ValueError` too).
    """
    if config.empty_text != "auto":
        return config.empty_text
    tower = open_tower(model)
    # A classifier may pool as SigLIP does, but its classes have no text.
    corrected = config.method == "legrad" and tower.is_siglip and tower.head.unit
    return EMPTY_TEXT if corrected else ""
