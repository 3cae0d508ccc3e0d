"""One transformer block, opened up into the steps an explainer needs between its input and output.

LeGrad differentiates inside a block: it needs the queries, keys and values, the stream after
attention and the pre-activations of the MLP. `torch.nn.MultiheadAttention` hides all of these, so
`Block` reads the weights of a block and computes each step itself. It holds references, never
copies: the model it was made from stays as it was.

Symbols: X is the stream before the block, X̂ after attention, Z after the MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from legrad.towers.activations import ActivationGradient
from legrad.towers.linear import Linear

Rotation = Callable[[Tensor], Tensor]  # of queries or keys, [B, h, N, d_h] to the same


@dataclass(frozen=True)
class Tail:
    """What follows the attention of a block: output projection, and an MLP with its LayerNorm.

    Every method maps batch-first tensors: B images, N tokens (prefix tokens first), width D, hidden
    width M, h heads of d_h = D / h channels. Dropout does not exist here: the semantics are those
    of eval mode, whatever the model's training flag says.
    """

    heads: int
    out: Linear
    scale1: Float[Tensor, " D"] | None  # LayerScale λ1; None stands for ones
    norm2: nn.LayerNorm
    expand: Linear  # W_1, b_1
    activation: nn.Module
    activation_gradient: ActivationGradient
    contract: Linear  # W_2, b_2
    scale2: Float[Tensor, " D"] | None  # LayerScale λ2

    @property
    def width(self) -> int:
        """D, the number of channels of the residual stream."""
        return self.out.outputs

    @property
    def hidden(self) -> int:
        """M, the number of hidden channels of the MLP."""
        return self.expand.outputs

    def project(self, mixed: Float[Tensor, "B h N d_h"]) -> Float[Tensor, "B N D"]:
        """What attention adds to the stream, λ1 ⊙ (O W_oᵀ + b_o), for O = A V per head."""
        return scaled(self.out(mixed.transpose(1, 2).flatten(2)), self.scale1)

    def add_attention(
        self, x: Float[Tensor, "B N D"], mixed: Float[Tensor, "B h N d_h"]
    ) -> Float[Tensor, "B N D"]:
        """The stream X̂ = X + λ1 ⊙ (O W_oᵀ + b_o)."""
        return x + self.project(mixed)

    def preactivation(self, attended: Float[Tensor, "B N D"]) -> Float[Tensor, "B N M"]:
        """The pre-activations a = W_1 LN(X̂) + b_1."""
        return self.expand(self.norm2(attended))

    def add_mlp(
        self, attended: Float[Tensor, "B N D"], a: Float[Tensor, "B N M"]
    ) -> Float[Tensor, "B N D"]:
        """The output Z = X̂ + λ2 ⊙ (W_2 φ(a) + b_2)."""
        return attended + scaled(self.contract(self.activation(a)), self.scale2)


@dataclass(frozen=True)
class Block(Tail):
    """References to the weights of one pre-norm block, and its forward pass step by step."""

    norm1: nn.Module
    qkv: Linear  # of queries, keys and values, in this order
    rotation: Rotation | None = None  # rotary positions, of one grid

    def attention_inputs(
        self, x: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B h N d_h"], Float[Tensor, "B h N d_h"], Float[Tensor, "B h N d_h"]]:
        """Queries, keys and values per head; queries and keys rotated, as the model compares them.

        The values are a copy: as a view of the joint projection they would keep the queries and
        keys alive for as long as an engine needs the values.
        """
        joint = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        query, key, value = (per_head(part, self.heads) for part in (*joint[:2], joint[2].clone()))
        if self.rotation is not None:
            query, key = self.rotation(query), self.rotation(key)
        return query, key, value


def per_head(x: Float[Tensor, "B N D"], heads: int) -> Float[Tensor, "B h N d_h"]:
    """The channels of each token, split among the heads."""
    images, tokens, _ = x.shape
    return x.view(images, tokens, heads, -1).transpose(1, 2)


def scaled(x: Float[Tensor, "*n D"], scale: Float[Tensor, " D"] | None) -> Float[Tensor, "*n D"]:
    """`x` times LayerScale, in the type of `x` (open_clip leaves LayerScale in float32)."""
    return x if scale is None else x * scale.to(x.dtype)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type for statistics and sums beside `dtype`: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)
