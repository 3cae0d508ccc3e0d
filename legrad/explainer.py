"""Explainers by name: the one entry point, `build`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from torch import Tensor, nn

from legrad.autograd import AutogradLeGrad
from legrad.baselines import BASELINES
from legrad.closed_form import ClosedFormLeGrad
from legrad.correction import EmptyPromptCorrection
from legrad.interface import Encoding, Explainer, select_layers
from legrad.options import LeGradOptions
from legrad.pooled import PooledLeGrad
from legrad.towers import Tower, open_tower

__all__ = ["ENGINES", "METHODS", "Encoding", "Explainer", "build", "options_of"]

METHODS: tuple[str, ...] = ("legrad", *BASELINES)
ENGINES: tuple[str, ...] = ("closed_form", "autograd")

DEFAULT_MEMORY_BUDGET = 1 << 30

Layers: TypeAlias = int | Sequence[int] | None


def build(
    method: str,
    model: nn.Module,
    layers: int | Sequence[int] | None = None,
    *,
    engine: str = "closed_form",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    empty_text: Tensor | None = None,
    empty_threshold: float = 0.8,
    **options: Any,
) -> Explainer:
    """Make an explainer for a model, which is left exactly as it is.

    Build it when the model has its final weights, type and device: the closed form folds some
    weights into products at this point.

    Args:
        method: one of `METHODS`.
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, its image tower, or a timm vision
            transformer, whose texts are the rows of its classifier.
        layers: the blocks that enter the method's formula: None for its default (LeGrad: all), an
            int k for the last k, or a list of 0-based indices.
        engine: one of `ENGINES`; "autograd" is LeGrad's slow reference. Other methods have one
            engine only and ignore it.
        memory_budget: bytes that LeGrad's temporaries of one chunk of prompts may take, and that an
            `Encoding` may keep before it leaves activations to be recomputed. Results depend on it
            only by rounding. Chunks never depend on free memory.
        empty_text: embedding [E] of a text without content, to take out what every text finds (see
            `legrad.correction`; meant for SigLIP); None for no correction.
        empty_threshold: from which level of its map, 0..1.
        options: of the method; `options_of` names them, the method's class explains them.

    Raises:
        ValueError: an unknown method, engine or option, a bad value of one, a budget that is not
            positive.
        UnsupportedModelError: the method has no exact form for this model (a `ValueError` too).
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    if memory_budget <= 0:
        raise ValueError(f"memory_budget={memory_budget}: must be a positive number of bytes")
    unknown = sorted(options.keys() - set(options_of(method)))
    if unknown:
        known = ", ".join(options_of(method)) or "none"
        raise ValueError(f"{method} has no option {unknown[0]!r}; known: {known}")
    tower = open_tower(model)
    if method == "legrad":
        explainer = _legrad(tower, layers, engine, memory_budget, LeGradOptions(**options))
    else:
        explainer = _baseline(method, tower, layers, options)
    if empty_text is None:
        return explainer
    if empty_text.shape != (tower.head.width,):
        raise ValueError(
            f"empty_text has shape {tuple(empty_text.shape)}, expected [{tower.head.width}]"
        )
    return EmptyPromptCorrection(explainer, empty_text[None], empty_threshold)


def options_of(method: str) -> tuple[str, ...]:
    """The names of a method's own options, which `build` takes as keywords."""
    if method == "legrad":
        return tuple(field.name for field in fields(LeGradOptions))
    parameters = inspect.signature(BASELINES[method].__init__).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def _legrad(
    tower: Tower, layers: Layers, engine: str, memory_budget: int, options: LeGradOptions
) -> Explainer:
    chosen = select_layers(layers, len(tower.blocks))
    options.check(tower, closed_form=engine == "closed_form")
    if engine == "autograd":
        return AutogradLeGrad(tower, chosen, options)
    fast = ClosedFormLeGrad if tower.pooler is None else PooledLeGrad
    return fast(tower, chosen, options, memory_budget)


def _baseline(method: str, tower: Tower, layers: Layers, options: dict[str, Any]) -> Explainer:
    make: Any = BASELINES[method]
    depth = len(tower.blocks)
    if layers is not None and not make.takes_layers:
        raise ValueError(f"layers={layers}: {method} leaves no choice of blocks")
    chosen = select_layers(make.default_layers(depth) if layers is None else layers, depth)
    result: Explainer = make(tower, chosen, **options)
    return result
