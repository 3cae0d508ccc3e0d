"""Weights a second time, in the order in which a CPU's matrix kernel reads them.

A product of few rows with a large matrix spends a fifth of its time on putting the matrix into that
order. A model's weights do not change, so that MKL can do it once: what PyTorch's own compiler does
with a frozen model, by the same two operators. The order depends on the number of rows; here it is
that of one image at the model's own size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.blocks import Block
from legrad.linear import Linear
from legrad.towers import Tower

LEAST_ELEMENTS = 1 << 18
"""Of a matrix: smaller ones stay in a core's cache, and nothing is gained."""
MOST_BYTES = 1 << 30
"""Of all second copies: ViT-B models have 0.34 GB of matrices, ViT-L models 1.2 GB."""


@dataclass(frozen=True)
class PackedLinear(Linear):
    """A linear layer of a CPU model in float32 that has its weight in both orders."""

    rows: int
    packed: Tensor  # opaque

    @classmethod
    def pack(cls, layer: Linear, rows: int) -> PackedLinear:
        """Put the weight of a layer in order for inputs of this many rows."""
        packed = torch.ops.mkl._mkl_reorder_linear_weight(layer.weight.detach(), rows)
        return cls(layer.weight, layer.bias, rows, packed)

    def __call__(self, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
        """X Wᵀ + b. Autograd knows nothing of the packed weight and gets the other one."""
        if x.numel() != self.rows * self.inputs or torch.is_grad_enabled():
            return super().__call__(x)
        result: Tensor = torch.ops.mkl._mkl_linear(
            x, self.packed, self.weight, self.bias, self.rows
        )
        return result


def packed(tower: Tower) -> Tower:
    """The tower with packed weights in its blocks, or as it is where that is no use.

    It is for float32 models on a CPU for which PyTorch has MKL, if there is anything to gain and
    the copies stay within `MOST_BYTES`.
    """
    weight = tower.conv.weight
    suited = weight.device.type == "cpu" and weight.dtype == torch.float32
    if not (suited and torch._C.has_mkl):
        return tower
    large = [layer.weight.nbytes for block in tower.blocks for layer in _large(block).values()]
    if not 0 < sum(large) <= MOST_BYTES:
        return tower
    rows = tower.prefix_count + math.prod(tower.native)
    return replace(tower, blocks=tuple(_pack(block, rows) for block in tower.blocks))


def _pack(block: Block, rows: int) -> Block:
    layers: dict[str, Any] = {
        name: PackedLinear.pack(layer, rows) for name, layer in _large(block).items()
    }
    return replace(block, **layers)


def _large(block: Block) -> dict[str, Linear]:
    layers = {
        "qkv": block.qkv,
        "out": block.out,
        "expand": block.expand,
        "contract": block.contract,
    }
    return {n: layer for n, layer in layers.items() if layer.weight.numel() >= LEAST_ELEMENTS}
