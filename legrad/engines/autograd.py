"""LeGrad as its paper defines it, by automatic differentiation: slow, short, and the oracle.

Read this first. The score of a text is read off every block's own output, s^l = ⟨t, head(mean_i
Z^l_i)⟩, and the map of block l is the positive part of ∂s^l/∂A^l, the sensitivity of that score to
the block's attention, averaged over heads and queries (LeGrad, arXiv 2404.03214, eq. 3–9). Towers
with an attention pooler read s^l through the pooler, and its attention is what is differentiated.

Blocks are independent of each other here: s^l depends on A^l only inside block l, so each block is
differentiated from its detached input. `closed_form.py` computes the same numbers without autograd.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.engines.readout import layer_readout
from legrad.explainer import Encoding, Explainer
from legrad.options import LeGradOptions
from legrad.towers.attention import attention, block_output
from legrad.towers.block import Block
from legrad.towers.tower import Tower


@dataclass(frozen=True)
class BlockInputs(Encoding):
    """An encoding that keeps the residual stream as it entered each selected block."""

    inputs: tuple[Float[Tensor, "B N D"], ...]


class AutogradLeGrad(Explainer):
    """LeGrad by `torch.autograd.grad` on explicit attention, one layer and one text at a time."""

    encoding = BlockInputs

    def __init__(self, tower: Tower, layers: tuple[int, ...], options: LeGradOptions) -> None:
        """Explain `tower`, averaging over the 0-based `layers`."""
        self._tower = tower
        self._layers = layers
        self._options = options
        self.heat_order = tower.heat_order

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> BlockInputs:
        """Run the blocks with explicit attention and keep their inputs."""
        x = self._tower.embed(images)
        grid = self._tower.grid(images)
        inputs = []
        for index, block in enumerate(self._tower.blocks_on(grid)):
            if index in self._layers:
                inputs.append(x)
            x = block_output(block, x, attention(block, x))
        return BlockInputs(self._tower.embedding(x), grid, tuple(inputs))

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, BlockInputs)
        raw = encoding.embedding.new_zeros((len(pairs), *encoding.grid))
        blocks = self._tower.blocks_on(encoding.grid)
        differentiate = self._attention if self._tower.pooler is None else self._pooler_attention
        for query, image in enumerate(pairs):
            for index, x in zip(self._layers, encoding.inputs, strict=True):
                own, other = x[image : image + 1], text[query : query + 1]
                # Leaving inference mode does not make its tensors usable by autograd: clones are.
                with torch.inference_mode(False), torch.enable_grad():
                    gradient = differentiate(
                        blocks[index:], own.clone().detach(), other.clone().to(self._tower.wide)
                    )
                relevance = gradient.to(self._tower.wide)
                if self._options.relu:
                    relevance = relevance.clamp(min=0)
                patches = relevance.mean(dim=(0, 1, 2))[self._tower.prefix_count :]
                raw[query] += patches.reshape(encoding.grid)
        return raw / len(self._layers)

    def _attention(
        self, blocks: tuple[Block, ...], x: Float[Tensor, "1 N D"], text: Float[Tensor, "1 E"]
    ) -> Float[Tensor, "1 h N N"]:
        """∂s/∂A^l, where s is read off the output of the first of `blocks`, or off the last's."""
        weights = attention(blocks[0], x).detach().requires_grad_()
        z = block_output(blocks[0], x, weights)
        if self._options.score_layer == "last":
            for block in blocks[1:]:
                z = block_output(block, z, attention(block, z))
        token = z.to(self._tower.wide)
        token = token.mean(dim=1) if self._options.pool == "mean" else token[:, 0]
        (gradient,) = torch.autograd.grad(self._tower.head.score(token, text).sum(), weights)
        return gradient

    def _pooler_attention(
        self, blocks: tuple[Block, ...], x: Float[Tensor, "1 N D"], text: Float[Tensor, "1 E"]
    ) -> Float[Tensor, "1 h 1 N"]:
        """∂s^l/∂A of the pooler applied to the output of the first of `blocks`."""
        z = block_output(blocks[0], x, attention(blocks[0], x)).detach()
        pooler, head = layer_readout(self._tower, self._options)
        weights = pooler.weights(z).detach().requires_grad_()
        pooled = pooler.finish(weights @ pooler.values(z)).to(self._tower.wide)
        (gradient,) = torch.autograd.grad(head.score(pooled, text).sum(), weights)
        return gradient
