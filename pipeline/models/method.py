"""The explainer that the settings of a run ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

import legrad
from legrad.towers.open import open_tower
from pipeline.config import MethodConfig
from pipeline.errors import ConfigError
from pipeline.inputs.option_texts import read_names

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
) -> legrad.Explainer:
    """Build the explainer of a model.

    Args:
        config: what is asked for.
        model: what is explained, in its final type and place.
        embed: the L2-normalised embedding of a text as it is, without templates.
        embed_names: the L2-normalised embeddings of class names, put into templates.
        memory_budget: bytes that LeGrad's temporaries may take.

    Raises:
        ConfigError: the method cannot explain this model, or not with these settings.
    """
    options = dict(config.options)
    for option in config.text_options():
        options[option] = embed_names(read_names(option, options[option]))
    try:
        empty = empty_text(config, model)
        return legrad.build(
            config.method,
            model,
            config.layers,
            engine=config.algorithm,
            memory_budget=memory_budget,
            empty_text=embed(empty) if empty else None,
            empty_threshold=config.empty_threshold,
            **options,
        )
    except ValueError as error:
        raise ConfigError(f"--method {config.method}: {error}") from error


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
