"""TextSpan's spatial decomposition of CLIP's embedding (Gandelsman et al., arXiv 2310.05916)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.arguments import check_floats
from legrad.baselines.base import DenseMethod
from legrad.baselines.recording import step
from legrad.explainer import Encoding
from legrad.heatmap import HeatOrder
from legrad.towers.attention import fused_output
from legrad.towers.block import Block
from legrad.towers.tower import Tower


class TextSpan(DenseMethod):
    """What each patch adds to CLS by attention, over all heads and blocks, along the text.

    The output of CLS is a sum of T = 2L + 1 terms (the embedding, and an attention and an MLP per
    block). The attention of block l adds Σ_m c_m with c_m = Σ_k A_{k,CLS,m} V_{m,k} W_o + b_o / N.
    LN_post is linear once its statistics μ, σ are fixed to those of CLS, so that each term reads
    γ ⊙ (c_m − μ / TN) / σ + β / TN; it is projected and divided by the length of the embedding.
    Maps are signed: they are upsampled first, and then what is below 0 is cut off.

    `background` [C, E] subtracts the mean map of C other texts, which the authors do with the names
    of all classes. With one text alone there is nothing to subtract.
    """

    reads = "cls"
    heat_order = HeatOrder.UPSAMPLE_CLIP_NORMALISE

    def __init__(
        self, tower: Tower, layers: tuple[int, ...], *, background: Tensor | None = None
    ) -> None:
        """Explain `tower`; see the class for `background`.

        Raises:
            TypeError: `background` is not a tensor of floats.
            ValueError: it does not hold texts of the embedding's width, or is not finite.
        """
        super().__init__(tower, layers)
        if background is not None:
            width = tower.head.width
            check_floats("background", background, f"embeddings [C, {width}]")
            if background.ndim != 2 or background.shape[1] != width or len(background) == 0:
                shape = tuple(background.shape)
                raise ValueError(f"background has shape {shape}, expected [C, {width}]")
            if not background.isfinite().all():
                raise ValueError("background has values that are not finite")
        self._mean_text = None if background is None else background.mean(dim=0, keepdim=True)

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        if self._mean_text is not None:
            text = text - self._mean_text.to(text)
        return super()._maps(encoding, text, pairs)

    def _forward(
        self, images: Float[Tensor, "B 3 H W"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B n E"]]:
        x = self._tower.embed(images)
        terms = Terms(self._tower, self._layers)
        for index, block in enumerate(self._tower.blocks_on(grid)):
            if index not in self._layers:
                x = fused_output(block, x)
                continue
            done = step(block, x)
            terms.add(index, block, done.weights[:, :, 0], done.values)
            x = done.output
        return x, terms.read(x[:, 0])

    def terms(self) -> Terms:
        """What adds up the terms of a forward pass that another method makes."""
        return Terms(self._tower, self._layers)


class Terms:
    """The terms of one forward pass that its patches have, added up block by block."""

    def __init__(self, tower: Tower, layers: tuple[int, ...]) -> None:
        """Of a pass through `tower`, of which the 0-based `layers` count."""
        self._tower, self._layers = tower, layers
        self._added: Tensor | None = None

    def add(
        self,
        index: int,
        block: Block,
        weights: Float[Tensor, "B h N"],
        values: Float[Tensor, "B h N d_h"],
    ) -> None:
        """Add what the attention of a block adds to CLS, if it is among the layers.

        Args:
            index: of the block.
            block: the block.
            weights: CLS's row of its attention.
            values: V.
        """
        if index not in self._layers:
            return
        weighted = weights[..., None] * values
        bias = block.project(torch.zeros_like(weighted[:, :, :1]))
        term = (block.project(weighted) - bias + bias / values.shape[2]).to(self._tower.wide)
        self._added = term if self._added is None else self._added.add_(term)

    def read(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B n E"]:
        """Terms of the embedding, of every patch, once CLS has come out of the last block."""
        assert self._added is not None  # no explainer is without layers
        added, cls, head = self._added, cls.to(self._tower.wide), self._tower.head
        terms = (2 * len(self._tower.blocks) + 1) * added.shape[1] / len(self._layers)
        read = added
        if head.norm is not None:
            variance, mean = torch.var_mean(cls, dim=-1, correction=0, keepdim=True)
            whitened = (added - mean[:, None] / terms) / (variance + head.norm.eps).sqrt()[:, None]
            read = head.norm.weight.to(added) * whitened + head.norm.bias.to(added) / terms
        if head.proj is not None:
            read = read @ head.proj.to(added)
        if head.unit:
            length = replace(head, unit=False).embed(cls).norm(dim=-1)
            read = read / length[:, None, None]
        return read[:, self._tower.prefix_count :]
