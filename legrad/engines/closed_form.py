"""LeGrad without autograd: the default engine. One forward pass serves every text.

The skeleton is in `layerwise.py`, the mathematics of one block in `folded.py`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.engines.folded import FoldedBlock
from legrad.engines.layerwise import LayerState, LayerwiseLeGrad, Queries
from legrad.options import LeGradOptions
from legrad.towers.attention import FusedStep
from legrad.towers.tower import Tower


class ClosedFormLeGrad(LayerwiseLeGrad):
    """Exact LeGrad of a tower without a pooler, whose layers are scored by their mean token."""

    @torch.no_grad()
    def __init__(
        self, tower: Tower, layers: tuple[int, ...], options: LeGradOptions, memory_budget: int
    ) -> None:
        """Explain `tower`, averaging over the 0-based `layers`; `memory_budget` is in bytes."""
        super().__init__(tower, layers, options, memory_budget)
        self._folded = {i: FoldedBlock.of(tower.blocks[i]) for i in layers}

    def _state(self, step: FusedStep) -> LayerState:
        mean = step.output.mean(dim=1, dtype=self._tower.wide)
        return LayerState(mean, step.attended, step.values, step.preactivations)

    def _temporaries(self, tokens: int) -> tuple[int, int]:
        width, hidden = self._tower.blocks[0].width, self._tower.blocks[0].hidden
        narrow, wide = self._tower.dtype.itemsize, self._tower.wide.itemsize
        # Of `FoldedBlock.relevance`, per token. An image: a, φ' and their product, X̂ and ĥ in both
        # types, H. A pair: G, and y or later the product of one head.
        per_image = hidden * 3 * narrow + width * (3 * narrow + 2 * wide)
        per_pair = (max(hidden, tokens) + width) * narrow
        return tokens * per_image, tokens * per_pair

    def _entering(
        self,
        queries: Queries,
        state: LayerState,
        g: Float[Tensor, "Q D"],
        norm: Float[Tensor, "Q 1"],
    ) -> Float[Tensor, "Q D"]:
        return (g / norm).to(self._tower.dtype)

    def _relevance(
        self, index: int, state: LayerState, entering: Float[Tensor, "G P D"]
    ) -> Float[Tensor, "G P N"]:
        folded = self._folded[index]
        a = state.preactivations
        if a is None:
            a = folded.block.preactivation(state.attended)
        return folded.relevance(state.attended, a, state.values, entering, self._relu)

    def _divisor(self, index: int, tokens: int) -> int:
        # The mean over heads and queries, and 1/N by which ∂s/∂z̄ reaches each token.
        return self._folded[index].block.heads * tokens**2
