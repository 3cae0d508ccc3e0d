"""Explainers by name: the one entry point, `build`."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from torch import Tensor, nn

from legrad.arguments import check_floats, check_kind, number, whole
from legrad.baselines import BASELINES
from legrad.baselines.base import AttentionMethod
from legrad.baselines.text_span import TextSpan
from legrad.contrast import LeGradTextSpan
from legrad.correction import EmptyPromptCorrection
from legrad.engines.autograd import AutogradLeGrad
from legrad.engines.closed_form import ClosedFormLeGrad
from legrad.engines.layerwise import LayerwiseLeGrad
from legrad.engines.pooled import PooledLeGrad
from legrad.engines.readout import check_for_tower
from legrad.errors import near
from legrad.explainer import Encoding, Explainer, select_layers
from legrad.options import LeGradOptions
from legrad.towers.open import open_tower
from legrad.towers.tower import Tower

__all__ = [
    "ENGINES",
    "METHODS",
    "Encoding",
    "Explainer",
    "build",
    "check_options",
    "clips",
    "options_of",
]

CONTRASTED = "legrad_text_span"
"""The method that takes a background and LeGrad's layers."""
METHODS: tuple[str, ...] = ("legrad", CONTRASTED, *BASELINES)
ENGINES: tuple[str, ...] = ("closed_form", "autograd")

DEFAULT_MEMORY_BUDGET = 1 << 30

ARGUMENTS = ("layers", "engine", "empty_text", "empty_threshold")
"""Of `build`, for every method."""

Layers: TypeAlias = int | float | Sequence[int] | None


def build(
    method: str,
    model: nn.Module,
    layers: Layers = None,
    *,
    engine: str = "closed_form",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    empty_text: Tensor | None = None,
    empty_threshold: float = 0.8,
    **options: Any,
) -> Explainer:
    """Make an explainer for a model, which is left exactly as it is.

    Build it when the model has its final weights, type and device: the closed form folds some
    weights into products at this point, and may keep copies of others.

    Args:
        method: one of `METHODS`.
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, its image tower, or a timm vision
            transformer, whose texts are the rows of its classifier.
        layers: the blocks that enter the method's formula: None for its default (LeGrad: all), an
            int k for the last k, a float below 1 for that part of them, the last ones, or a list of
            0-based indices.
        engine: one of `ENGINES`; "autograd" is LeGrad's slow reference. Methods without LeGrad
            have one engine only and ignore it.
        memory_budget: bytes that LeGrad's temporaries of one chunk of prompts may take, and that an
            `Encoding` may keep before it leaves activations to be recomputed. Results depend on it
            only by rounding. Chunks never depend on free memory.
        empty_text: embedding [E] of a text without content, to take out what every text finds (see
            `legrad.correction`; meant for SigLIP); None for no correction.
        empty_threshold: from which level of its map, 0..1.
        options: of the method; `options_of` names them, the method's class explains them.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an unknown method, engine or option, a bad value of one, a budget that is not
            positive.
        UnsupportedModelError: the method has no exact form for this model (a `ValueError` too).
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    check_kind("model", model, nn.Module, "the model itself")
    memory_budget = whole("memory_budget", memory_budget, "a whole number of bytes")
    if memory_budget <= 0:
        raise ValueError(f"memory_budget={memory_budget}: must be a positive number of bytes")
    options = check_options(method, options)
    tower = open_tower(model)
    explainer: Explainer
    if method == "legrad":
        explainer = _legrad(tower, layers, engine, memory_budget, LeGradOptions(**options))
    elif method == CONTRASTED:
        span = TextSpan(tower, tuple(range(len(tower.blocks))), **options)
        found = _legrad(tower, layers, engine, memory_budget, LeGradOptions())
        explainer = LeGradTextSpan(found, span)
    else:
        explainer = _baseline(method, tower, layers, options)
    if empty_text is None:
        return explainer
    check_floats("empty_text", empty_text, f"an embedding [{tower.head.width}]")
    if empty_text.shape != (tower.head.width,):
        raise ValueError(
            f"empty_text has shape {tuple(empty_text.shape)}, expected [{tower.head.width}]"
        )
    if not empty_text.isfinite().all():
        raise ValueError("empty_text has values that are not finite")
    if isinstance(explainer, AttentionMethod):
        raise ValueError(f"empty_text: {method} has the same map for every text, and for none")
    return EmptyPromptCorrection(explainer, empty_text.detach()[None], empty_threshold)


def options_of(method: str) -> dict[str, Any]:
    """A method's own options, which `build` takes as keywords, and their defaults."""
    if method == "legrad":
        return {field.name: field.default for field in fields(LeGradOptions)}
    kind = TextSpan if method == CONTRASTED else BASELINES[method]
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def clips(method: str) -> bool:
    """Whether a method cuts off what is below 0: `heat_order.clips` of its explainers."""
    return method in BASELINES and BASELINES[method].heat_order.clips


def check_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the method takes them; refuses what cannot be right whatever the model is.

    A whole number is good for an option that is a float, and becomes one; NumPy's numbers become
    Python's.

    Raises:
        ValueError: an unknown method or option, with the nearest one that there is, or a value of
            another type than the option's default, or infinite or not a number.
    """
    check_kind("method", method, str, "its name")
    if method not in METHODS:
        hint = near(method, METHODS)
        raise ValueError(f"unknown method {method!r}{hint}; known: {', '.join(METHODS)}")
    known = options_of(method)
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            hint = near(name, known)
            if not hint and (own := difflib.get_close_matches(name, ARGUMENTS, 1)):
                hint = f" ({own[0]} is a setting beside the options)"
            listed = ", ".join(known) or "none"
            raise ValueError(f"{method} has no option {name!r}{hint}; known: {listed}")
        kind = Tensor if known[name] is None else type(known[name])  # tensors have no default
        checked[name] = _checked(name, value, kind)
    return checked


def _checked(name: str, value: Any, kind: type) -> Any:
    """An option's value, as one of its kind."""
    try:
        if kind is int:
            return whole(name, value, "a whole number")
        if kind is float:
            real = number(name, value, "a number")
            if not math.isfinite(real):
                raise ValueError(f"{name}={value!r}: must be a finite number")
            return real
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, kind):
        raise ValueError(f"{name}={value!r}: must be of type {kind.__name__}")
    return value


def _legrad(
    tower: Tower, layers: Layers, engine: str, memory_budget: int, options: LeGradOptions
) -> LayerwiseLeGrad | AutogradLeGrad:
    chosen = select_layers(layers, len(tower.blocks))
    check_for_tower(options, tower, closed_form=engine == "closed_form")
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
