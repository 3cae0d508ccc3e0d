"""Weights a second time, in the order in which a CPU's matrix kernel reads them.

A product of few rows with a large matrix spends a fifth of its time on putting the matrix into that
order. A model's weights do not change, so that MKL can do it once: what PyTorch's own compiler does
with a frozen model, by the same two operators. The order depends on the number of rows; here it is
that of one image at the model's own size. Batches of images take the ordinary product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.linear import Linear
from legrad.towers.block import Block
from legrad.towers.tower import Tower

LEAST_ELEMENTS = 1 << 18
"""Of a matrix: smaller ones stay in a core's cache, and nothing is gained."""
MOST_BYTES = 1 << 30
"""Of all second copies: ViT-B models have 0.34 GB of matrices, ViT-L models 1.2 GB."""


@dataclass(frozen=True)
class PackedLinear(Linear):
    """A linear layer of a CPU model in float32 that puts its weight in order when it is needed."""

    rows: int

    def __call__(self, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
        """X Wᵀ + b. Autograd knows nothing of the packed weight and gets the other one."""
        if x.numel() != self.rows * self.inputs or torch.is_grad_enabled():
            return super().__call__(x)
        result: Tensor = torch.ops.mkl._mkl_linear(
            x, self._packed, self.weight, self.bias, self.rows
        )
        return result

    @cached_property
    def _packed(self) -> Tensor:
        """Opaque; made for the first input of one image: who only has batches does not pay."""
        packed: Tensor = torch.ops.mkl._mkl_reorder_linear_weight(self.weight.detach(), self.rows)
        return packed


def packed(tower: Tower) -> Tower:
    """The tower with blocks that pack their weights, or as it is where that is no use.

    It is for float32 models on a CPU for which PyTorch has MKL, if there is anything to gain and
    the copies would stay within `MOST_BYTES`. Weights must not change any more.
    """
    weight = tower.conv.weight
    suited = weight.device.type == "cpu" and weight.dtype == torch.float32
    if not (suited and torch._C.has_mkl and torch._C._has_mkldnn):
        return tower
    large = [layer.weight.nbytes for block in tower.blocks for layer in _large(block).values()]
    if not 0 < sum(large) <= MOST_BYTES:
        return tower
    rows = tower.prefix_count + math.prod(tower.native)
    return replace(tower, blocks=tuple(_pack(block, rows) for block in tower.blocks))


def _pack(block: Block, rows: int) -> Block:
    layers: dict[str, Any] = {
        name: PackedLinear(layer.weight, layer.bias, rows) for name, layer in _large(block).items()
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
