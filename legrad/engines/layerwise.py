"""What the two closed forms share: one forward pass, and maps from what each layer leaves behind.

What a layer leaves behind, its `LayerState`, is all that its maps depend on. `explain` uses each
state as it comes by and forgets it, `encode` keeps them. Attention stays fused in the forward pass,
and no N x N map is stored.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.engines.chunks import Chunk, plan
from legrad.explainer import Encoding, Explainer, checked_pairs
from legrad.options import LeGradOptions
from legrad.towers.attention import FusedStep, fused_step
from legrad.towers.block import Block
from legrad.towers.tower import Tower

Watch: TypeAlias = Callable[[int, Block, FusedStep], None]
"""Is shown every block of a forward pass with its index, and with CLS's row of its attention."""

# On a CPU larger chunks are slower: 0.40 instead of 0.33 forward passes per text (B/16), because
# blocks of memory this large come fresh from the operating system each time, page by page.
CPU_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True)
class LayerState:
    """What the maps of one layer are computed from.

    Attributes:
        token: what the layer's score is read off, in the wide type: the mean of its tokens, or the
            pooled one.
        attended: X̂ of the n tokens of the block, or of the pooled token alone (n = 1).
        values: V, of the block or of the pooler.
        preactivations: a; None to have them computed from X̂ again.
    """

    token: Float[Tensor, "B C"]
    attended: Float[Tensor, "B n C"]
    values: Float[Tensor, "B h N d_h"]
    preactivations: Float[Tensor, "B n M"] | None

    def of(self, chunk: Chunk) -> LayerState:
        """The same of a chunk's images only."""
        a = self.preactivations
        return LayerState(
            token=chunk.of_images(self.token),
            attended=chunk.of_images(self.attended),
            values=chunk.of_images(self.values),
            preactivations=None if a is None else chunk.of_images(a),
        )


@dataclass(frozen=True)
class LayerStates(Encoding):
    """An encoding that keeps the state of each selected layer."""

    states: tuple[LayerState, ...]


@dataclass(frozen=True)
class Queries:
    """The pairs of one call.

    Attributes:
        text: of each pair, in the wide type.
        images: of each pair.
        chunks: which pairs are explained together.
        shared: of each text what all layers have in common; None for nothing.
        total: relevance of each token, prefix included, added up over layers in place.
    """

    text: Float[Tensor, "Q E"]
    images: Int[Tensor, " Q"]
    chunks: list[Chunk]
    shared: Float[Tensor, "Q R"] | None
    total: Float[Tensor, "Q N"]


class LayerwiseLeGrad(Explainer):
    """Exact LeGrad without an autograd graph, layer by layer."""

    encoding = LayerStates

    def __init__(
        self, tower: Tower, layers: tuple[int, ...], options: LeGradOptions, memory_budget: int
    ) -> None:
        """Explain `tower`, averaging over the 0-based `layers`; `memory_budget` is in bytes."""
        self._tower = tower
        self._layers = layers
        self._head = tower.head
        self._relu = options.relu
        self._memory_budget = memory_budget
        self.heat_order = tower.heat_order

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"], watch: Watch | None = None) -> LayerStates:
        """Run the encoder, keeping X̂, V and z̄ per layer, and a for as many as the budget allows.

        `watch` sees the forward pass go by, for another method that shares it.
        """
        states: list[LayerState] = []

        def keep(_: int, state: LayerState) -> None:
            fits = len(states) < self._layers_kept_whole(state)
            states.append(state if fits else replace(state, preactivations=None))

        embedding = self._forward(images, keep, watch)
        return LayerStates(embedding, self._tower.grid(images), tuple(states))

    @torch.no_grad()
    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, LayerStates)
        queries = self._queries(text, pairs, encoding.grid, encoding.embedding.device)
        for index, state in zip(self._layers, encoding.states, strict=True):
            self._add(queries, index, state)
        return self._on_grid(queries.total, encoding.grid)

    @torch.no_grad()
    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
        watch: Watch | None = None,
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Embeddings and raw maps; each layer is explained as it is passed, then forgotten.

        `watch` sees the forward pass go by, for another method that shares it.
        """
        grid = self._tower.grid(images)
        pairs = checked_pairs((len(images), self._tower.head.width), text, image_index)
        queries = self._queries(text, pairs, grid, images.device)
        embedding = self._forward(images, partial(self._add, queries), watch)
        return embedding, self._on_grid(queries.total, grid)

    def _forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        visit: Callable[[int, LayerState], None],
        watch: Watch | None,
    ) -> Float[Tensor, "B E"]:
        """The image embeddings; `visit` sees the state of each selected layer on the way."""
        x = self._tower.embed(images)
        for index, block in enumerate(self._tower.blocks_on(self._tower.grid(images))):
            step = fused_step(block, x, of_first=watch is not None)
            x = step.output
            if watch is not None:
                watch(index, block, step)
            if index in self._layers:
                visit(index, self._state(step))
            del step  # or its activations would stay beside those of the next block
        return self._tower.embedding(x)

    def _queries(
        self,
        text: Float[Tensor, "Q E"],
        pairs: list[int],
        grid: tuple[int, int],
        device: torch.device,
    ) -> Queries:
        tokens = self._tower.prefix_count + math.prod(grid)
        per_image, per_pair = self._temporaries(tokens)
        budget = self._memory_budget
        if device.type == "cpu":
            budget = min(budget, CPU_CHUNK_BYTES)
        text = text.to(device, self._tower.wide)
        return Queries(
            text=text,
            images=torch.tensor(pairs, dtype=torch.long, device=device),
            chunks=plan(pairs, per_image, per_pair, budget, device),
            shared=self._shared(text),
            total=text.new_zeros(len(text), tokens),
        )

    def _add(self, queries: Queries, index: int, state: LayerState) -> None:
        """Add the relevance of one layer to every pair's total."""
        if not queries.chunks:
            return
        g = self._head.gradient(state.token[queries.images], queries.text)
        # All that follows is linear in g. At unit norm it stays clear of float16's subnormal
        # numbers; the norm comes back at the end.
        norm = g.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(g.dtype).tiny)
        entering = self._entering(queries, state, g, norm)
        back = norm / self._divisor(index, queries.total.shape[1])
        for chunk in queries.chunks:
            relevance = self._relevance(index, state.of(chunk), entering[chunk.queries])
            queries.total[chunk.queries] += back[chunk.queries] * relevance

    def _layers_kept_whole(self, state: LayerState) -> int:
        """For how many layers an encoding keeps the pre-activations too, within the budget."""
        if state.preactivations is None:
            return 0
        required = (state.attended.nbytes + state.values.nbytes) * len(self._layers)
        return (self._memory_budget - required) // state.preactivations.nbytes

    def _on_grid(
        self, total: Float[Tensor, "Q N"], grid: tuple[int, int]
    ) -> Float[Tensor, "Q gh gw"]:
        """Mean over layers, without prefix tokens, as rows and columns of patches."""
        patches = total[:, self._tower.prefix_count :]
        return patches.div(len(self._layers)).view(len(total), *grid)

    def _divisor(self, index: int, tokens: int) -> int:
        """What is left to divide the relevance of layer `index` by, among `tokens` of them."""
        return 1

    def _shared(self, text: Float[Tensor, "Q E"]) -> Float[Tensor, "Q R"] | None:
        """Of each text what all layers have in common."""
        return None

    @abstractmethod
    def _state(self, step: FusedStep) -> LayerState:
        """What the maps of a layer need of what its block has computed."""

    @abstractmethod
    def _temporaries(self, tokens: int) -> tuple[int, int]:
        """Bytes that `_relevance` takes per image, shared by its texts, and per pair."""

    @abstractmethod
    def _entering(
        self,
        queries: Queries,
        state: LayerState,
        g: Float[Tensor, "Q C"],
        norm: Float[Tensor, "Q 1"],
    ) -> Float[Tensor, "Q R"]:
        """What `_relevance` takes of each text: of g = ∂s/∂token at unit norm, in the tower's type.

        Args:
            queries: the pairs.
            state: of the layer.
            g: of each pair.
            norm: the length of g, positive.
        """

    @abstractmethod
    def _relevance(
        self, index: int, state: LayerState, entering: Float[Tensor, "G P R"]
    ) -> Float[Tensor, "G P N"]:
        """Relevance of each token in layer `index`, for some images and their texts: Ê of eq. 8.

        The mean over heads and queries of ∂s/∂A, its positive part alone with `relu`, but for
        `_divisor`.
        """
