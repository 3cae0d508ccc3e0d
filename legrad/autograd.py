"""LeGrad as its paper defines it, by automatic differentiation: slow, short, and the oracle.

Read this first. The score of a text is read off every block's own output, s^l = ⟨t, head(mean_i
Z^l_i)⟩, and the map of block l is the positive part of ∂s^l/∂A^l, the sensitivity of that score to
the block's attention, averaged over heads and queries (EVALUATION §1.1; paper eq. 3–9).

Blocks are independent of each other here: s^l depends on A^l only inside block l, so each block is
differentiated from its detached input. `closed_form.py` computes the same numbers without autograd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.blocks import Block
from legrad.interface import Encoding, Explainer
from legrad.towers import ClipTower


@dataclass(frozen=True)
class BlockInputs(Encoding):
    """An encoding that keeps the residual stream as it entered each selected block."""

    inputs: tuple[Float[Tensor, "B N D"], ...]


class AutogradLeGrad(Explainer):
    """LeGrad by `torch.autograd.grad` on explicit attention, one layer and one text at a time."""

    def __init__(self, tower: ClipTower, layers: tuple[int, ...]) -> None:
        """Explain `tower`, averaging over the 0-based `layers`."""
        self._tower = tower
        self._layers = layers

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> BlockInputs:
        """Run the blocks with explicit attention and keep their inputs."""
        x = self._tower.embed(images)
        inputs = []
        for index, block in enumerate(self._tower.blocks):
            if index in self._layers:
                inputs.append(x)
            x = block_output(block, x, attention(block, x))
        return BlockInputs(self._tower.embedding(x), self._tower.grid(images), tuple(inputs))

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        if not isinstance(encoding, BlockInputs):
            raise TypeError(f"{type(encoding).__name__} is not an encoding of this engine")
        raw = encoding.embedding.new_zeros((len(pairs), *encoding.grid))
        for query, image in enumerate(pairs):
            for index, x in zip(self._layers, encoding.inputs, strict=True):
                relevance = self._relevance(
                    self._tower.blocks[index], x[image : image + 1], text[query : query + 1]
                )
                raw[query] += relevance[1:].reshape(encoding.grid)  # token 0 is CLS
        return raw / len(self._layers)

    def _relevance(
        self, block: Block, x: Float[Tensor, "1 N D"], text: Float[Tensor, "1 E"]
    ) -> Float[Tensor, " N"]:
        """Ê^l_j = mean over heads k and queries i of max(0, ∂s^l/∂A^l_{k,i,j})."""
        # Leaving inference mode alone does not make its tensors usable by autograd: clones are.
        with torch.inference_mode(False), torch.enable_grad():
            x, text = x.clone().detach(), text.clone().to(self._tower.wide)
            weights = attention(block, x).detach().requires_grad_()
            mean = block_output(block, x, weights).to(self._tower.wide).mean(dim=1)
            score = self._tower.head.score(mean, text)
            (gradient,) = torch.autograd.grad(score.sum(), weights)
        return gradient[0].to(self._tower.wide).clamp(min=0).mean(dim=(0, 1))


def attention(block: Block, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N N"]:
    """A = softmax(Q Kᵀ / √d_h): rows are queries, columns keys."""
    query, key, _ = block.attention_inputs(x)
    return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(dim=-1)


def block_output(
    block: Block, x: Float[Tensor, "B N D"], weights: Float[Tensor, "B h N N"]
) -> Float[Tensor, "B N D"]:
    """Z of a block whose attention weights are given."""
    _, _, value = block.attention_inputs(x)
    attended = block.add_attention(x, weights @ value)
    return block.add_mlp(attended, block.preactivation(attended))
