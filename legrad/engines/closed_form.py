"""LeGrad without autograd: the default engine. One forward pass serves every text.

Attention stays fused in the forward pass and no N x N map is stored. What a layer leaves behind,
its `LayerState`, is all its maps depend on; `explain` uses each state as it comes by and forgets
it, `encode` keeps them. The mathematics of one block is in `folded.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.engines.chunks import Chunk, plan
from legrad.engines.folded import FoldedBlock
from legrad.explainer import Encoding, Explainer, checked_pairs
from legrad.options import LeGradOptions
from legrad.towers.attention import fused_attention
from legrad.towers.block import Block
from legrad.towers.tower import Tower

# On a CPU larger chunks are slower: 0.40 instead of 0.33 forward passes per text (B/16), because
# blocks of memory this large come fresh from the operating system each time, page by page.
CPU_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True)
class LayerState:
    """What the maps of one layer are computed from."""

    attended: Float[Tensor, "B N D"]  # X̂
    values: Float[Tensor, "B h N d_h"]  # V
    mean: Float[Tensor, "B D"]  # z̄, float32
    preactivations: Float[Tensor, "B N M"] | None  # a; None: recompute from X̂


@dataclass(frozen=True)
class LayerStates(Encoding):
    """An encoding that keeps the state of each selected layer."""

    states: tuple[LayerState, ...]


@dataclass(frozen=True)
class Queries:
    """The texts of one call, their images, and how they are grouped into chunks."""

    text: Float[Tensor, "Q E"]
    images: Int[Tensor, " Q"]
    chunks: list[Chunk]


class ClosedFormLeGrad(Explainer):
    """Exact LeGrad of a tower without a pooler, without an autograd graph."""

    @torch.no_grad()
    def __init__(
        self, tower: Tower, layers: tuple[int, ...], options: LeGradOptions, memory_budget: int
    ) -> None:
        """Explain `tower`, averaging over the 0-based `layers`; `memory_budget` is in bytes."""
        self._tower = tower
        self._folded = {i: FoldedBlock.of(tower.blocks[i]) for i in layers}
        self._relu = options.relu
        self._memory_budget = memory_budget

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> LayerStates:
        """Run the encoder, keeping X̂, V and z̄ per layer, and a for as many as the budget allows."""
        states: list[LayerState] = []

        def keep(index: int, state: LayerState) -> None:
            fits = len(states) < self._layers_kept_whole(state)
            states.append(state if fits else replace(state, preactivations=None))

        embedding = self._forward(images, keep)
        return LayerStates(embedding, self._tower.grid(images), tuple(states))

    @torch.no_grad()
    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        if not isinstance(encoding, LayerStates):
            raise TypeError(f"{type(encoding).__name__} is not an encoding of this engine")
        queries = self._queries(text, pairs, encoding.grid, encoding.embedding.device)
        total = self._zeros(queries, encoding.grid)
        for index, state in zip(self._folded, encoding.states, strict=True):
            self._add_relevance(total, index, state, queries)
        return self._on_grid(total, encoding.grid)

    @torch.no_grad()
    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Embeddings and raw maps; each layer is explained as it is passed, then forgotten."""
        grid = self._tower.grid(images)
        pairs = checked_pairs((len(images), self._tower.head.width), text, image_index)
        queries = self._queries(text, pairs, grid, images.device)
        total = self._zeros(queries, grid)

        def add(index: int, state: LayerState) -> None:
            self._add_relevance(total, index, state, queries)

        embedding = self._forward(images, add)
        return embedding, self._on_grid(total, grid)

    def _forward(
        self, images: Float[Tensor, "B 3 H W"], visit: Callable[[int, LayerState], None]
    ) -> Float[Tensor, "B E"]:
        """The image embeddings; `visit` sees the state of each selected layer on the way."""
        x = self._tower.embed(images)
        for index, block in enumerate(self._tower.blocks_on(self._tower.grid(images))):
            x, state = self._pass(block, x)
            if index in self._folded:
                visit(index, state)
            del state  # or its activations would stay beside those of the next block
        return self._tower.embedding(x)

    def _pass(
        self, block: Block, x: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B N D"], LayerState]:
        attended, values = fused_attention(block, x)
        a = block.preactivation(attended)
        z = block.add_mlp(attended, a)
        return z, LayerState(attended, values, z.mean(dim=1, dtype=self._tower.wide), a)

    def _add_relevance(
        self, total: Float[Tensor, "Q N"], index: int, state: LayerState, queries: Queries
    ) -> None:
        """Add the Ê of one layer to every pair's total, prefix tokens included."""
        if not queries.chunks:
            return
        folded = self._folded[index]
        g = self._tower.head.gradient(state.mean[queries.images], queries.text)
        # All that follows is linear in g. At unit norm it stays clear of float16's subnormal
        # numbers; the norm, and the 1/N by which ∂s/∂z̄ reaches each token, come back at the end.
        norm = g.norm(dim=-1, keepdim=True)
        unit = (g / norm.clamp(min=torch.finfo(g.dtype).tiny)).to(self._tower.dtype)
        back = norm / (folded.block.heads * total.shape[1] ** 2)
        for chunk in queries.chunks:
            attended = chunk.of_images(state.attended)
            if state.preactivations is None:
                a = folded.block.preactivation(attended)
            else:
                a = chunk.of_images(state.preactivations)
            relevance = folded.relevance(
                attended, a, chunk.of_images(state.values), unit[chunk.queries], self._relu
            )
            total[chunk.queries] += back[chunk.queries] * relevance

    def _queries(
        self,
        text: Float[Tensor, "Q E"],
        pairs: list[int],
        grid: tuple[int, int],
        device: torch.device,
    ) -> Queries:
        width, hidden = self._tower.blocks[0].width, self._tower.blocks[0].hidden
        narrow, wide = self._tower.dtype.itemsize, self._tower.wide.itemsize
        tokens = self._tower.prefix_count + math.prod(grid)
        # Temporaries of `FoldedBlock.relevance`, per token. An image: a and φ', their product in
        # float32, X̂ and ĥ in both types, H. A pair: G, and y or later the product of one head.
        per_image = hidden * (2 * narrow + wide) + width * (3 * narrow + 2 * wide)
        per_pair = (max(hidden, tokens) + width) * narrow
        budget = self._memory_budget
        if device.type == "cpu":
            budget = min(budget, CPU_CHUNK_BYTES)
        return Queries(
            text=text.to(device, self._tower.wide),
            images=torch.tensor(pairs, dtype=torch.long, device=device),
            chunks=plan(pairs, tokens * per_image, tokens * per_pair, budget, device),
        )

    def _layers_kept_whole(self, state: LayerState) -> int:
        """For how many layers an encoding keeps the pre-activations too, within the budget."""
        assert state.preactivations is not None
        required = (state.attended.nbytes + state.values.nbytes) * len(self._folded)
        return (self._memory_budget - required) // state.preactivations.nbytes

    def _on_grid(
        self, total: Float[Tensor, "Q N"], grid: tuple[int, int]
    ) -> Float[Tensor, "Q gh gw"]:
        """Mean over layers, without prefix tokens, as rows and columns of patches."""
        patches = total[:, self._tower.prefix_count :]
        return patches.div(len(self._folded)).view(len(total), *grid)

    def _zeros(self, queries: Queries, grid: tuple[int, int]) -> Float[Tensor, "Q N"]:
        tokens = self._tower.prefix_count + math.prod(grid)
        return queries.text.new_zeros(len(queries.text), tokens)
