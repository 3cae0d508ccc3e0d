"""NACLIP (Hajimiri et al., arXiv 2404.08181): patches attend to their neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from legrad.baselines.last_block import LastBlockMethod
from legrad.towers.attention import similarity
from legrad.towers.block import Block
from legrad.towers.tower import Tower


class Naclip(LastBlockMethod):
    """Cosine of the text with each patch, whose last attention is softmax(K Kᵀ / √d_h + ω).

    ω_{ij} = exp(−|p_i − p_j|² / 2σ²) for patches at the grid positions p, and 0 where a prefix
    token takes part. Neither the residual connection nor the MLP of the block is kept. Maps are
    signed. On a grid that is not the model's own, positional embeddings are resized as everywhere
    here and in open_clip, bicubic with antialiasing; the authors' code does it without, by factors
    of (h + 0.1) / 14.
    """

    keeps_streams = False

    def __init__(self, tower: Tower, layers: tuple[int, ...], *, std: float = 5.0) -> None:
        """Explain `tower`; `std` is σ in patches.

        Raises:
            ValueError: `std` is not positive.
        """
        if std <= 0:
            raise ValueError(f"std={std}: must be positive")
        super().__init__(tower, layers)
        self._std = std

    def _mixed(
        self, block: Block, x: Float[Tensor, "B N D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B h N d_h"]:
        _, key, values = block.attention_inputs(x)
        logits = similarity(key, key)
        near = self._nearness(grid).to(logits)
        return (logits + near).softmax(dim=-1) @ values

    def _nearness(self, grid: tuple[int, int]) -> Float[Tensor, "N N"]:
        rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
        places = torch.stack([rows.flatten(), columns.flatten()], dim=1).double()
        squared = (places[:, None] - places[None]).square().sum(dim=-1)
        prefix = self._tower.prefix_count
        return F.pad((-squared / (2 * self._std**2)).exp(), (prefix, 0, prefix, 0))
