"""Relevance propagated from a score down through the blocks of a tower, for LRP and its kin.

Softmax, GELU, LayerNorm, LayerScale and the L2 norm pass relevance on unchanged; biases get none.
The score is the last linear layer, with the text as its weight, and starts with relevance 1.
No paper says how relevance passes through rotary positions: such towers are refused. So are models
in half precision: relevance is divided by sums that nearly cancel, and rounding the weights alone,
with everything else in float32, changes a mask (with the demo's CLIP and bfloat16, LRP's to an IoU
of 0.09).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.baselines.base import Baseline
from legrad.baselines.recording import Recording, Step, record, rounds
from legrad.baselines.rules import Rules, copies, matmul
from legrad.errors import UnsupportedModelError
from legrad.explainer import Encoding
from legrad.towers.block import Block, per_head
from legrad.towers.tower import Tower


@dataclass(frozen=True)
class Relevant:
    """Relevance at one block: of its attention, and of its input."""

    weights: Float[Tensor, "G h N N"]
    stream: Float[Tensor, "G N D"]


class RelevanceMethod(Baseline):
    """A method that propagates relevance from the score, for all texts over one forward pass."""

    encoding: type[Recording] = Recording

    rules: ClassVar[Rules]
    graph: ClassVar[bool] = False
    """Whether the formula needs gradients of the score too."""

    def __init__(self, tower: Tower, layers: tuple[int, ...]) -> None:
        """Explain `tower` by its 0-based `layers`.

        Raises:
            UnsupportedModelError: the tower is not read by CLS, or has rotary positions.
            ValueError: the tower is in half precision.
        """
        super().__init__(tower, layers)
        if tower.dtype is not tower.wide:
            kind = str(tower.dtype).removeprefix("torch.")
            raise ValueError(
                f"{type(self).__name__} of a {kind} model: "
                "rounded weights change what it finds; give the model in float32"
            )
        if tower.rotations is not None:
            raise UnsupportedModelError(
                f"{type(self).__name__} of a tower with rotary positions",
                "the method has no rule for relevance of queries and keys that are rotated",
            )

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Recording:
        """One forward pass with explicit attention."""
        return record(self._tower, images, self._layers[0], graph=self.graph)

    @torch.no_grad()
    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q rows columns"]:
        assert isinstance(encoding, Recording)
        raw = encoding.embedding.new_zeros((len(pairs), *self._size(encoding)))
        for images, queries in rounds(pairs, raw.device):
            raw[queries] = self._relevance(encoding, text[queries.cpu()], images).to(raw.dtype)
        return raw

    def _size(self, recording: Recording) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return recording.grid

    @abstractmethod
    def _relevance(
        self, recording: Recording, text: Float[Tensor, "G E"], images: Int[Tensor, " G"]
    ) -> Float[Tensor, "G rows columns"]:
        """Maps of the texts of some images, one each."""

    def _propagate(
        self, recording: Recording, text: Float[Tensor, "G E"], images: Int[Tensor, " G"]
    ) -> Iterator[Relevant]:
        """Relevance at the recorded blocks, from the last one down."""
        steps = [_of_images(step, images) for step in recording.steps]
        r = head_relevance(self._tower, steps[-1].output, text, self.rules)
        blocks = self._tower.blocks[-len(steps) :]
        for block, step in zip(reversed(blocks), reversed(steps), strict=True):
            relevant = block_relevance(block, step, r, self.rules)
            r = relevant.stream
            yield relevant


def head_relevance(
    tower: Tower, output: Float[Tensor, "G N D"], text: Float[Tensor, "G E"], rules: Rules
) -> Float[Tensor, "G N D"]:
    """Relevance of the last block's output for the score of each text; only CLS has any."""
    cls = output[:, 0]
    text = text.to(cls)
    r = rules.inner(tower.head.embed(cls), text, cls.new_ones(len(cls), 1))
    if tower.head.proj is not None:
        normed = replace(tower.head, proj=None, bias=None, unit=False).embed(cls)
        r = rules.linear(normed, tower.head.proj.T, r)
    tokens = r.new_zeros(output.shape)
    tokens[:, 0] = copies(cls, r)
    return tokens


def block_relevance(block: Block, step: Step, r: Float[Tensor, "G N D"], rules: Rules) -> Relevant:
    """Relevance of a block's attention and of its input, given that of its output."""
    attended, r_mlp = rules.add(step.attended, step.output - step.attended, r)
    normed = block.norm2(step.attended)
    r_hidden = rules.linear(block.activation(block.expand(normed)), block.contract.weight, r_mlp)
    r = copies(step.attended, attended + rules.linear(normed, block.expand.weight, r_hidden))

    stream, r_attention = rules.add(step.stream, step.attended - step.stream, r)
    mixed = (step.weights @ step.values).transpose(1, 2).flatten(2)
    r_mixed = per_head(rules.linear(mixed, block.out.weight, r_attention), block.heads)
    r_weights, r_values = matmul(step.weights, step.values, r_mixed)
    r_query, r_key = matmul(step.query, step.key.mT, r_weights)
    joint = [part.transpose(1, 2).flatten(2) for part in (r_query, r_key.mT, r_values)]
    r_normed = rules.linear(block.norm1(step.stream), block.qkv.weight, torch.cat(joint, dim=2))
    return Relevant(r_weights, copies(step.stream, stream + r_normed))


def _of_images(step: Step, images: Int[Tensor, " G"]) -> Step:
    return Step(**{name: value.detach()[images] for name, value in vars(step).items()})
