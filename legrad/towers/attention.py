"""The two ways through a block: fused attention, and explicit attention that can be explained.

Fused kernels never form the matrix A; whoever differentiates or changes it takes the explicit one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from legrad.towers.block import Block


@dataclass(frozen=True)
class FusedStep:
    """What one block computed on the way to its output, but for the attention weights."""

    values: Float[Tensor, "B h N d_h"]  # V
    attended: Float[Tensor, "B N D"]  # X̂
    preactivations: Float[Tensor, "B N M"]  # a
    output: Float[Tensor, "B N D"]  # Z
    of_first: Float[Tensor, "B h N"] | None  # the first row of A, that of CLS, where it is wanted


def fused_step(block: Block, x: Float[Tensor, "B N D"], *, of_first: bool = False) -> FusedStep:
    """One block, by fused attention; of the attention itself the first row at the most."""
    query, key, values = block.attention_inputs(x)
    row = similarity(query[:, :, :1], key).softmax(dim=-1)[:, :, 0] if of_first else None
    attended = block.add_attention(x, F.scaled_dot_product_attention(query, key, values))
    a = block.preactivation(attended)
    return FusedStep(values, attended, a, block.add_mlp(attended, a), row)


def fused_output(block: Block, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """Z of a block, by fused attention."""
    return fused_step(block, x).output


def attention(block: Block, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N N"]:
    """A = softmax(Q Kᵀ / √d_h): rows are queries, columns keys."""
    query, key, _ = block.attention_inputs(x)
    return similarity(query, key).softmax(dim=-1)


def similarity(
    query: Float[Tensor, "B h n d_h"], key: Float[Tensor, "B h N d_h"]
) -> Float[Tensor, "B h n N"]:
    """Q Kᵀ / √d_h, what attention is the softmax of."""
    return query @ key.mT / math.sqrt(query.shape[-1])


def block_output(
    block: Block, x: Float[Tensor, "B N D"], weights: Float[Tensor, "B h N N"]
) -> Float[Tensor, "B N D"]:
    """Z of a block whose attention weights are given."""
    _, _, value = block.attention_inputs(x)
    attended = block.add_attention(x, weights @ value)
    return block.add_mlp(attended, block.preactivation(attended))
