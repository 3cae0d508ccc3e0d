"""SCLIP (Wang et al., arXiv 2312.01597): correlative self-attention."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.last_block import LastBlockMethod
from legrad.towers.attention import similarity
from legrad.towers.block import Block


class Sclip(LastBlockMethod):
    """Cosine of the text with each patch, whose last attention is softmax(Q Qᵀ) + softmax(K Kᵀ).

    Both at the scale 1/√d_h, and their sum is not halved. Maps are signed. On a grid that is not
    the model's own, positional embeddings are resized as everywhere here and in open_clip, bicubic
    with antialiasing; the authors' code does it without, by factors of (h + 0.1) / 14.
    """

    def _mixed(
        self, block: Block, x: Float[Tensor, "B N D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B h N d_h"]:
        query, key, values = block.attention_inputs(x)
        weights = similarity(query, query).softmax(dim=-1) + similarity(key, key).softmax(dim=-1)
        return weights @ values
