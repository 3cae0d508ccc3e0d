"""The derivatives of the activations that transformers have in their MLPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from open_clip.transformer import QuickGELU
from timm.layers import activations
from torch import Tensor, nn

from legrad.errors import UnsupportedModelError

ActivationGradient: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""φ'(a) times a scale that broadcasts to a, in the type of a."""

QUICK_GELU_SLOPE = 1.702


def activation_gradient(module: nn.Module, owner: str) -> ActivationGradient:
    """The derivative of an MLP's activation.

    Raises:
        UnsupportedModelError: it is neither a GELU nor QuickGELU; `owner` says whose it is.
    """
    if isinstance(module, QuickGELU | activations.QuickGELU):
        return quick_gelu_gradient
    if isinstance(module, nn.GELU):
        return gelu_gradient(module.approximate)
    if isinstance(module, activations.GELU):
        return gelu_gradient("none")
    if isinstance(module, activations.GELUTanh):
        return gelu_gradient("tanh")
    raise UnsupportedModelError(
        f"{owner} has activation {type(module).__name__}",
        "its derivative is not known here; known are GELU, GELU(tanh) and QuickGELU",
    )


def gelu_gradient(approximate: str) -> ActivationGradient:
    """The derivative of GELU, for either of its two definitions ("none" is the exact erf one)."""

    def gradient(a: Tensor, scale: Tensor) -> Tensor:
        # The kernel that autograd itself calls: one pass over memory where Φ(a) + a·Φ'(a) written
        # out takes six, and computed in float32 inside for half-precision inputs. On a CPU it is
        # vectorised for contiguous operands only, eight times as fast.
        result: Tensor = torch.ops.aten.gelu_backward(
            scale.expand_as(a).contiguous(), a, approximate=approximate
        )
        return result

    return gradient


def quick_gelu_gradient(a: Tensor, scale: Tensor) -> Tensor:
    """The derivative of x·sigmoid(1.702 x), which is SiLU'(1.702 x)."""
    result: Tensor = torch.ops.aten.silu_backward(
        scale.expand_as(a).contiguous(), QUICK_GELU_SLOPE * a
    )
    return result
