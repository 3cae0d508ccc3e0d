"""GEM (Bousselham et al., arXiv 2312.00878): self-self attention along a parallel path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import DenseMethod
from legrad.towers.attention import fused_output
from legrad.towers.block import Block
from legrad.towers.tower import Tower


class Gem(DenseMethod):
    """Cosine of the text with each patch of a path that the last blocks add to without their MLPs.

    Each adds the mean of softmax(X̄ X̄ᵀ τ) V over X = V, K, Q, where X̄ is normalised and is
    replaced by its own mixture `iterations` times; τ is the mean length of the normed tokens over
    √d_h. `layers` are the blocks of that path, the last k. Maps are signed.
    """

    def __init__(self, tower: Tower, layers: tuple[int, ...], *, iterations: int = 1) -> None:
        """Explain `tower`; see the class for `iterations`.

        Raises:
            ValueError: `layers` are not the last k, or `iterations` is negative.
        """
        if layers != tuple(range(layers[0], len(tower.blocks))):
            raise ValueError(f"layers={list(layers)}: GEM's path takes the last k blocks")
        if iterations < 0:
            raise ValueError(f"iterations={iterations}: must not be negative")
        super().__init__(tower, layers)
        self._iterations = iterations

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """The last six, the default of the authors' code: its `depth=7` counts from 1 up to 7."""
        return range(max(0, depth - 6), depth)

    def _forward(
        self, images: Float[Tensor, "B 3 H W"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B n E"]]:
        x = self._tower.embed(images)
        path = x
        for index, block in enumerate(self._tower.blocks_on(grid)):
            if index == self._layers[0]:
                path = x
            if index in self._layers:
                path = path + block.project(self._self_self(block, x))
            x = fused_output(block, x)
        return x, self._features(path)

    def _self_self(self, block: Block, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N d_h"]:
        query, key, values = block.attention_inputs(x)
        length = block.norm1(x).norm(dim=-1).mean(dim=-1)
        temperature = length[:, None, None, None] * query.shape[-1] ** -0.5
        mixtures = []
        for tokens in (values, key, query):
            for _ in range(self._iterations):
                unit = F.normalize(tokens, dim=-1)
                tokens = self._weights(unit, temperature) @ unit
            mixtures.append(self._weights(F.normalize(tokens, dim=-1), temperature) @ values)
        return torch.stack(mixtures).mean(dim=0)

    @staticmethod
    def _weights(
        unit: Float[Tensor, "B h N d_h"], temperature: Float[Tensor, "B 1 1 1"]
    ) -> Float[Tensor, "B h N N"]:
        return (unit @ unit.mT * temperature).softmax(dim=-1)
