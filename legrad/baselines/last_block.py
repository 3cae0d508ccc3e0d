"""Dense features of CLIP by another attention in the last block: MaskCLIP, SCLIP and NACLIP."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import DenseMethod
from legrad.towers.attention import fused_output
from legrad.towers.block import Block


class LastBlockMethod(DenseMethod):
    """The last block runs once as it is, for the embedding, and once with another attention."""

    takes_layers: ClassVar[bool] = False
    keeps_streams: ClassVar[bool] = True
    """Whether the patches keep the residual connection and the MLP of the last block."""

    def _forward(
        self, images: Float[Tensor, "B 3 H W"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B n E"]]:
        x = self._tower.embed(images)
        *blocks, last = self._tower.blocks_on(grid)
        for block in blocks:
            x = fused_output(block, x)
        mixed = self._mixed(last, x, grid)
        if self.keeps_streams:
            attended = last.add_attention(x, mixed)
            tokens = last.add_mlp(attended, last.preactivation(attended))
        else:
            tokens = last.project(mixed)
        return fused_output(last, x), self._features(tokens)

    @abstractmethod
    def _mixed(
        self, block: Block, x: Float[Tensor, "B N D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B h N d_h"]:
        """What takes the place of A V."""
