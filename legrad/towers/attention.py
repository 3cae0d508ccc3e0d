"""The two ways through a block: fused attention, and explicit attention that can be explained.

Fused kernels never form the matrix A; whoever differentiates or changes it takes the explicit one.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from legrad.towers.block import Block


def fused_attention(
    block: Block, x: Float[Tensor, "B N D"]
) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B h N d_h"]]:
    """X̂ and V of a block; the attention weights are never formed."""
    query, key, values = block.attention_inputs(x)
    mixed = F.scaled_dot_product_attention(query, key, values)
    return block.add_attention(x, mixed), values


def fused_output(block: Block, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """Z of a block, by fused attention."""
    attended, _ = fused_attention(block, x)
    return block.add_mlp(attended, block.preactivation(attended))


def attention(block: Block, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N N"]:
    """A = softmax(Q Kᵀ / √d_h): rows are queries, columns keys."""
    query, key, _ = block.attention_inputs(x)
    return similarity(query, key).softmax(dim=-1)


def similarity(
    query: Float[Tensor, "B h N d_h"], key: Float[Tensor, "B h N d_h"]
) -> Float[Tensor, "B h N N"]:
    """Q Kᵀ / √d_h, what attention is the softmax of."""
    return query @ key.mT / math.sqrt(query.shape[-1])


def block_output(
    block: Block, x: Float[Tensor, "B N D"], weights: Float[Tensor, "B h N N"]
) -> Float[Tensor, "B N D"]:
    """Z of a block whose attention weights are given."""
    _, _, value = block.attention_inputs(x)
    attended = block.add_attention(x, weights @ value)
    return block.add_mlp(attended, block.preactivation(attended))
