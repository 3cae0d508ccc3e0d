"""LeGrad of towers with an attention pooler (SigLIP, CoCa), without autograd.

The score of a layer pools its tokens with one query, s^l = ⟨t, head(pool(Z^l))⟩, and the map is the
positive part of ∂s^l/∂A, the gradient for that query's attention, averaged over heads (LeGrad,
arXiv 2404.03214, §3.2). What follows the attention acts on a single token:

    g = ∂s/∂(pooled token)              of the head
    G = ∂s/∂O                           back through the residual MLP and the output projection
    ∂s/∂A_{k,j} = ⟨G_k, V_{j,k}⟩

V is one projection per layer, the same for every text, and where the head does no more than divide
by a length, g = (t − ⟨t, û⟩ û) / ‖u‖, most products with g are products with t, made once for all
layers: a text costs next to nothing. The skeleton is in `layerwise.py`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.engines.folded import FoldedBlock
from legrad.engines.layerwise import LayerState, LayerwiseLeGrad, Queries
from legrad.engines.readout import layer_readout
from legrad.options import LeGradOptions
from legrad.towers.attention import FusedStep
from legrad.towers.tower import Tower


class PooledLeGrad(LayerwiseLeGrad):
    """Exact LeGrad of a tower with an attention pooler."""

    @torch.no_grad()
    def __init__(
        self, tower: Tower, layers: tuple[int, ...], options: LeGradOptions, memory_budget: int
    ) -> None:
        """Explain `tower`, averaging over the 0-based `layers`; `memory_budget` is in bytes."""
        super().__init__(tower, layers, options, memory_budget)
        self._pooler, self._head = layer_readout(tower, options)
        tail = self._pooler.tail
        self._folded = None if tail is None else FoldedBlock.of(tail)
        # What g is multiplied by to reach O past the MLP, and φ(a): side by side, in one product.
        out = self._pooler.out.weight
        self._back = out if tail is None else torch.cat([out, tail.contract.weight], dim=1)
        self._only_divides = self._head.unit and self._head.norm is None and self._head.proj is None

    def _state(self, step: FusedStep) -> LayerState:
        values = self._pooler.values(step.output)
        mixed = self._pooler.weights(step.output) @ values
        attended = self._pooler.out(mixed.transpose(1, 2).flatten(2))
        # The MLP acts on one token: its pre-activations are not worth keeping.
        pooled = self._pooler.finish(mixed).to(self._tower.wide)
        return LayerState(pooled, attended, values, preactivations=None)

    def _temporaries(self, tokens: int) -> tuple[int, int]:
        # A pair: the product for all heads and tokens, and the slopes of the MLP.
        hidden = 0 if self._pooler.tail is None else self._pooler.tail.hidden
        return 0, (self._pooler.heads * tokens + hidden) * self._tower.wide.itemsize

    def _shared(self, text: Float[Tensor, "Q E"]) -> Float[Tensor, "Q R"] | None:
        return text.to(self._tower.dtype) @ self._back if self._only_divides else None

    def _entering(
        self,
        queries: Queries,
        state: LayerState,
        g: Float[Tensor, "Q C"],
        norm: Float[Tensor, "Q 1"],
    ) -> Float[Tensor, "Q R"]:
        """Of g at unit norm what reaches O past the MLP, and φ(a)."""
        if queries.shared is None:
            return (g * (1 / norm)).to(self._tower.dtype) @ self._back
        # The product with g from those with t, and with û of each image.
        length = state.token.norm(dim=-1, keepdim=True)
        unit = state.token / length
        along = (queries.text * unit[queries.images]).sum(dim=-1, keepdim=True)
        of_unit = (unit.to(self._tower.dtype) @ self._back)[queries.images]
        scale = 1 / norm / length[queries.images]
        entering: Tensor = (queries.shared - along * of_unit) * scale
        return entering.to(self._tower.dtype)

    def _relevance(
        self, index: int, state: LayerState, entering: Float[Tensor, "G P R"]
    ) -> Float[Tensor, "G P N"]:
        gradient = entering
        if self._folded is not None:
            a = self._folded.block.preactivation(state.attended)
            b, u = entering.tensor_split([self._pooler.out.inputs], dim=-1)
            gradient = self._folded.backward(state.attended, a, u, b)[:, :, 0]
        images, texts, _ = gradient.shape
        per_head = gradient.view(images, texts, self._pooler.heads, -1).transpose(1, 2)
        product: Tensor = per_head @ state.values.mT  # [G, h, P, N]
        if self._relu:
            product = product.clamp_(min=0)
        return product.mean(dim=1, dtype=self._tower.wide)
