"""Explainers by name: the one entry point, `build`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from legrad.autograd import AutogradLeGrad
from legrad.closed_form import ClosedFormLeGrad
from legrad.interface import Encoding, Explainer, select_layers
from legrad.towers import ClipTower

__all__ = ["ENGINES", "METHODS", "Encoding", "Explainer", "build"]

METHODS: tuple[str, ...] = ("legrad",)
ENGINES: tuple[str, ...] = ("closed_form", "autograd")

DEFAULT_MEMORY_BUDGET = 1 << 30


def build(
    method: str,
    model: nn.Module,
    layers: int | Sequence[int] | None = None,
    *,
    engine: str = "closed_form",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Explainer:
    """Make an explainer for an open_clip model, which is left exactly as it is.

    Build it when the model has its final weights, type and device: the closed form folds some
    weights into products at this point.

    Args:
        method: one of `METHODS`.
        model: an open_clip `CLIP` or `CustomTextCLIP`, or its `VisionTransformer`.
        layers: None for all blocks, an int k for the last k, or a list of 0-based indices.
        engine: one of `ENGINES`; "autograd" is the slow reference.
        memory_budget: bytes that the temporaries of one chunk of prompts may take, and that an
            `Encoding` may keep before it leaves activations to be recomputed. Results depend on it
            only by rounding. Chunks never depend on free memory.

    Raises:
        ValueError: an unknown method or engine, bad `layers`, a budget that is not positive.
        UnsupportedModelError: the model has no exact LeGrad here (a `ValueError` too).
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    if memory_budget <= 0:
        raise ValueError(f"memory_budget={memory_budget}: must be a positive number of bytes")
    tower = ClipTower(model)
    chosen = select_layers(layers, len(tower.blocks))
    if engine == "autograd":
        return AutogradLeGrad(tower, chosen)
    return ClosedFormLeGrad(tower, chosen, memory_budget)
