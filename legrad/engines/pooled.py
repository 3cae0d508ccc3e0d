"""LeGrad of towers with an attention pooler (SigLIP, CoCa), without autograd.

The score of a layer pools its tokens with one query, s^l = ⟨t, head(pool(Z^l))⟩, and the map is the
positive part of ∂s^l/∂A, the gradient for that query's attention, averaged over heads (LeGrad,
arXiv 2404.03214, §3.2). What follows the attention acts on a single token:

    g = ∂s/∂(pooled token)              of the head
    G = ∂s/∂O                           back through the residual MLP and the output projection
    ∂s/∂A_{k,j} = ⟨G_k, V_{j,k}⟩

V is one projection per layer, the same for every text, and where the head does no more than divide
by a length, g = (t − ⟨t, û⟩ û) / ‖u‖, most products with g are products with t, made once for all
layers: a text costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.baselines.recording import fused_output
from legrad.engines.chunks import Chunk, plan
from legrad.engines.folded import FoldedBlock
from legrad.explainer import Encoding, Explainer, checked_pairs
from legrad.options import LeGradOptions, heat_order, layer_readout
from legrad.packed import packed
from legrad.towers.tower import Tower


@dataclass(frozen=True)
class PooledState:
    """What the maps of one layer are computed from."""

    values: Float[Tensor, "B h N d_h"]  # V
    attended: Float[Tensor, "B 1 C"]  # the output projection of O = A V, before the MLP
    pooled: Float[Tensor, "B C"]  # after it, in the wide type


@dataclass(frozen=True)
class PooledStates(Encoding):
    """An encoding that keeps the state of each selected layer."""

    states: tuple[PooledState, ...]


class PooledLeGrad(Explainer):
    """Exact LeGrad of a tower with an attention pooler."""

    @torch.no_grad()
    def __init__(
        self, tower: Tower, layers: tuple[int, ...], options: LeGradOptions, memory_budget: int
    ) -> None:
        """Explain `tower`, averaging over the 0-based `layers`; `memory_budget` is in bytes."""
        self._tower = packed(tower)
        self._layers = layers
        self._relu = options.relu
        self._memory_budget = memory_budget
        self._pooler, self._head = layer_readout(tower, options)
        tail = self._pooler.tail
        self._folded = None if tail is None else FoldedBlock.of(tail)
        out = self._pooler.out.weight
        self._back = out if tail is None else torch.cat([out, tail.contract.weight], dim=1)
        self._only_divides = self._head.unit and self._head.norm is None and self._head.proj is None
        self.heat_order = heat_order(tower)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> PooledStates:
        """Run the encoder, keeping V and the pooled token per layer."""
        states: list[PooledState] = []
        embedding = self._forward(images, states.append)
        return PooledStates(embedding, self._tower.grid(images), tuple(states))

    @torch.no_grad()
    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        if not isinstance(encoding, PooledStates):
            raise TypeError(f"{type(encoding).__name__} is not an encoding of this engine")
        add, finish = self._accumulator(text, pairs, encoding.grid, encoding.embedding.device)
        for state in encoding.states:
            add(state)
        return finish()

    @torch.no_grad()
    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Embeddings and raw maps; each layer is explained as it is passed, then forgotten."""
        pairs = checked_pairs((len(images), self._tower.head.width), text, image_index)
        add, finish = self._accumulator(text, pairs, self._tower.grid(images), images.device)
        embedding = self._forward(images, add)
        return embedding, finish()

    def _forward(
        self, images: Float[Tensor, "B 3 H W"], visit: Callable[[PooledState], None]
    ) -> Float[Tensor, "B E"]:
        x = self._tower.embed(images)
        for index, block in enumerate(self._tower.blocks_on(self._tower.grid(images))):
            x = fused_output(block, x)
            if index in self._layers:
                visit(self._state(x))
        return self._tower.embedding(x)

    def _state(self, z: Float[Tensor, "B N D"]) -> PooledState:
        values = self._pooler.values(z)
        mixed = self._pooler.weights(z) @ values
        attended = self._pooler.out(mixed.transpose(1, 2).flatten(2))
        return PooledState(values, attended, self._pooler.finish(mixed).to(self._tower.wide))

    def _accumulator(
        self,
        text: Float[Tensor, "Q E"],
        pairs: list[int],
        grid: tuple[int, int],
        device: torch.device,
    ) -> tuple[Callable[[PooledState], None], Callable[[], Float[Tensor, "Q gh gw"]]]:
        """Two functions: add the maps of one layer, and give their mean over the layers."""
        text = text.to(device, self._tower.wide)
        images = torch.tensor(pairs, dtype=torch.long, device=device)
        tokens = self._tower.prefix_count + grid[0] * grid[1]
        # Per text: the product for all heads and tokens, and the slopes of the MLP.
        hidden = 0 if self._pooler.tail is None else self._pooler.tail.hidden
        per_text = (self._pooler.heads * tokens + hidden) * self._tower.wide.itemsize
        chunks = plan(pairs, 0, per_text, self._memory_budget, device)
        total = text.new_zeros(len(text), tokens)
        back = text.to(self._tower.dtype) @ self._back if self._only_divides else None

        def add(state: PooledState) -> None:
            if pairs:
                g = self._head.gradient(state.pooled[images], text)
                # All that follows is linear in g; at unit norm it stays clear of subnormal numbers.
                norm = g.norm(dim=-1, keepdim=True)
                inverse = 1 / norm.clamp(min=torch.finfo(g.dtype).tiny)
                if back is None:
                    reached = (g * inverse).to(self._tower.dtype) @ self._back
                else:
                    reached = self._reached(state, images, text, back, inverse)
                for chunk in chunks:
                    relevance = self._relevance(state, chunk, reached[chunk.queries])
                    total[chunk.queries] += norm[chunk.queries] * relevance

        def finish() -> Float[Tensor, "Q gh gw"]:
            patches = total[:, self._tower.prefix_count :]
            return patches.div(len(self._layers)).view(len(total), *grid)

        return add, finish

    def _reached(
        self,
        state: PooledState,
        images: Int[Tensor, " Q"],
        text: Float[Tensor, "Q C"],
        back: Float[Tensor, "Q R"],
        inverse: Float[Tensor, "Q 1"],
    ) -> Float[Tensor, "Q R"]:
        """Of g at unit norm, what reaches O past the MLP and φ(a), from what t itself gives."""
        length = state.pooled.norm(dim=-1, keepdim=True)
        unit = state.pooled / length
        along = (text * unit[images]).sum(dim=-1, keepdim=True)
        of_unit = unit.to(self._tower.dtype) @ self._back
        reached: Tensor = (back - along * of_unit[images]) * (inverse / length[images])
        return reached.to(self._tower.dtype)

    def _relevance(
        self, state: PooledState, chunk: Chunk, reached: Float[Tensor, "G P R"]
    ) -> Float[Tensor, "G P N"]:
        """Mean over heads of ∂s/∂A, positive part, of some images and their texts."""
        gradient = reached
        if self._folded is not None:
            attended = chunk.of_images(state.attended)
            a = self._folded.block.preactivation(attended)
            b, u = reached.tensor_split([self._pooler.out.inputs], dim=-1)
            gradient = self._folded.backward(attended, a, u, b)[:, :, 0]
        images, texts, _ = gradient.shape
        per_head = gradient.view(images, texts, self._pooler.heads, -1).transpose(1, 2)
        product: Tensor = per_head @ chunk.of_images(state.values).mT  # [G, h, P, N]
        if self._relu:
            product = product.clamp_(min=0)
        return product.mean(dim=1, dtype=self._tower.wide)
