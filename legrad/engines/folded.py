"""The gradient inside one block, in closed form.

The score of a layer sees only the *mean* of its tokens, so the gradient that enters the block is
the same vector g for every token; all that differs from token to token is the derivative of the
activation and the LayerNorm. With everything else folded into one matrix per block, a text costs
one [N, M] x [M, D] product and one [N, D] x [D, N] product per image and layer.

Symbols, all row vectors, so that a gradient has the shape of what it belongs to:

    g = ∂s/∂z̄ / N                      at every token of Z
    u = (λ2 ⊙ g) W_2                    at φ(a), the same for every token
    y_i = u ⊙ φ'(a_i) / σ_i             at a, already divided by the σ_i of LayerNorm
    G_i = y_i F − c_i H_i + b           at O, the mixed values of all heads
      F = centred(W_1 ⊙ γ) (λ1 ⊙ W_o)   centring each row is LayerNorm's subtraction of the mean
      H_i = (λ1 ⊙ ĥ_i) W_o              LayerNorm's subtraction of the part along ĥ,
      c_i = ⟨y_i, a_i − β W_1ᵀ − b_1⟩ / D   for a_i − β W_1ᵀ − b_1 = (γ ⊙ ĥ_i) W_1ᵀ
      b = (λ1 ⊙ g) W_o                  the residual connection around the MLP
    ∂s/∂A_{k,i,j} = ⟨G_{i,k}, V_{j,k}⟩
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from legrad.towers.block import Tail, scaled, wide_type

# What stays in a core's cache between the three passes over a tile.
CPU_TILE_BYTES = 1 << 20
TENSOR_CORE_TOKENS = 8


@dataclass(frozen=True)
class FoldedBlock:
    """A block with the products of its weights that do not depend on the input."""

    block: Tail
    folded: Float[Tensor, "D M"]  # Fᵀ, as a linear layer holds its weight; formed in float32
    offset: Float[Tensor, " M"]  # β W_1ᵀ + b_1, float32 because a − offset cancels

    @classmethod
    def of(cls, block: Tail) -> FoldedBlock:
        """Fold one block; its float32 copies live only in here."""
        wide = wide_type(block.expand.weight.dtype)
        expand = block.expand.weight.to(wide)
        weighted = expand * block.norm2.weight.to(wide)
        weighted -= weighted.mean(dim=1, keepdim=True)
        out = block.out.weight.to(wide)
        if block.scale1 is not None:
            out = out * block.scale1.to(wide)[:, None]
        offset = expand @ block.norm2.bias.to(wide)
        if block.expand.bias is not None:
            offset += block.expand.bias.to(wide)
        # Along the dimension that is summed over: a CPU without half-precision units multiplies
        # bfloat16 by the other layout twelve times as slowly.
        folded = (out.T @ weighted.T).to(block.expand.weight.dtype)
        return cls(block=block, folded=folded, offset=offset)

    def relevance(
        self,
        attended: Float[Tensor, "G N D"],
        a: Float[Tensor, "G N M"],
        values: Float[Tensor, "G h N d_h"],
        g: Float[Tensor, "G P D"],
        relu: bool = True,
    ) -> Float[Tensor, "G P N"]:
        """Σ_{k,i} max(0, ∂s/∂A_{k,i,j}) for each token j, given X̂, a, V and the gradient g.

        Without `relu`, the signed sum.
        """
        gradient = self.gradient(attended, a, g)
        if not relu:
            return signed_sums(gradient, values)
        # No more memory than y, [N, M] per text, has just taken.
        tile_bytes = self.block.hidden * gradient[..., 0].nbytes
        if gradient.device.type == "cpu":
            tile_bytes = min(tile_bytes, CPU_TILE_BYTES)
        return positive_sums(gradient, values, tile_bytes)

    def gradient(
        self,
        attended: Float[Tensor, "G N D"],
        a: Float[Tensor, "G N M"],
        g: Float[Tensor, "G P D"],
    ) -> Float[Tensor, "G P N D"]:
        """∂s/∂O, heads side by side."""
        u = scaled(g, self.block.scale2) @ self.block.contract.weight
        b = scaled(g, self.block.scale1) @ self.block.out.weight
        return self.backward(attended, a, u, b)

    def backward(
        self,
        attended: Float[Tensor, "G N D"],
        a: Float[Tensor, "G N M"],
        u: Float[Tensor, "G P M"],
        b: Float[Tensor, "G P D"],
    ) -> Float[Tensor, "G P N D"]:
        """∂s/∂O, given what g becomes at φ(a) and, past the MLP, at O.

        LayerNorm's statistics are computed in float32 whatever the block's type, and so is what
        cancels, a − offset, before it is rounded.
        """
        block = self.block
        inverse_sigma, whitened = self._layer_norm(attended)
        h = scaled(whitened, block.scale1) @ block.out.weight

        slope = block.activation_gradient(a, inverse_sigma)  # φ'(a) / σ
        along = torch.sub(a, self.offset, out=torch.empty_like(a)).mul_(slope)
        c = u @ along.mT / block.width  # [G, P, N]
        gradient = torch.addcmul(b[:, :, None], c[..., None], h[:, None], value=-1)
        y = slope[:, None] * u[:, :, None]
        # Added in place: one pass over [N, D] less per text.
        gradient.view(-1, block.width).addmm_(y.view(-1, block.hidden), self.folded.T)
        return gradient

    def _layer_norm(
        self, attended: Float[Tensor, "G N D"]
    ) -> tuple[Float[Tensor, "G N 1"], Float[Tensor, "G N D"]]:
        """1/σ and ĥ of the block's second LayerNorm, before its affine part."""
        x = attended.to(self.offset.dtype)
        # The public layer_norm does not return 1/σ, and `Tensor.var` takes ten times as long.
        whitened, _, inverse_sigma = torch.native_layer_norm(
            x, x.shape[-1:], None, None, self.block.norm2.eps
        )
        return inverse_sigma.to(attended.dtype), whitened.to(attended.dtype)


def positive_sums(
    gradient: Float[Tensor, "G P N D"], values: Float[Tensor, "G h N d_h"], tile_bytes: int
) -> Float[Tensor, "G P N"]:
    """Σ_{k,i} max(0, ⟨G_{i,k}, V_{j,k}⟩) for each token j, over heads k and queries i.

    The products are formed tile by tile, as many heads at a time as fit into `tile_bytes` with all
    texts, or else as many texts of one head; at least one. The sums are float32 (float64 for
    float64).
    """
    images, texts, tokens, _ = gradient.shape
    heads = values.shape[1]
    columns = _aligned(values).mT  # [G, h, d_h, N], and some zeros
    at_once = max(1, tile_bytes // (images * tokens**2 * gradient.itemsize))  # pairs of both
    texts_at_once, heads_at_once = min(at_once, texts), max(1, at_once // texts)
    sums = gradient.new_zeros(images, texts, tokens, dtype=wide_type(gradient.dtype))
    for first in range(0, texts, texts_at_once):
        some = slice(first, first + texts_at_once)
        rows = gradient[:, some].reshape(images, -1, heads, columns.shape[2]).transpose(1, 2)
        for start in range(0, heads, heads_at_once):
            part = slice(start, start + heads_at_once)
            tile = (rows[:, part] @ columns[:, part]).clamp_(min=0)  # [G, part, some x N, N]
            by_text = tile.view(*tile.shape[:2], -1, tokens, tile.shape[-1])
            sums[:, some] += by_text.sum(dim=(1, 3), dtype=sums.dtype)[..., :tokens]
    return sums


def _aligned(values: Float[Tensor, "G h N d_h"]) -> Float[Tensor, "G h padded d_h"]:
    """V with as many tokens as tensor cores multiply at once: 197 or 257 take twice as long."""
    if values.device.type != "cuda":
        return values
    return F.pad(values, (0, 0, 0, -values.shape[2] % TENSOR_CORE_TOKENS))


def signed_sums(
    gradient: Float[Tensor, "G P N D"], values: Float[Tensor, "G h N d_h"]
) -> Float[Tensor, "G P N"]:
    """Σ_{k,i} ⟨G_{i,k}, V_{j,k}⟩: without the maximum the sum over queries goes inside."""
    wide = wide_type(gradient.dtype)
    summed = gradient.sum(dim=2, dtype=wide).view(*gradient.shape[:2], values.shape[1], -1)
    return torch.einsum("gpkd,gknd->gpn", summed, values.to(wide))
