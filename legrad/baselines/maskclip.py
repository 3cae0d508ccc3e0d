"""MaskCLIP (Zhou et al., arXiv 2112.01071): every patch attends to itself alone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.last_block import LastBlockMethod
from legrad.towers.block import Block


class MaskClip(LastBlockMethod):
    """Cosine of the text with each patch, whose last attention is replaced by its own value V.

    The residual connection and the MLP stay, as in the authors' code. Maps are signed.
    """

    def _mixed(
        self, block: Block, x: Float[Tensor, "B N D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B h N d_h"]:
        _, _, values = block.attention_inputs(x)
        return values
