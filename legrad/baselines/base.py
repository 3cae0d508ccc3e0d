"""The kinds of baseline: what they record, and how their results become maps.

A method's own file holds its formula; everything that methods share is here or in `recording`.
`layers` means the same for all of them, the blocks that enter the formula; each method has a
default of its own, and some have no choice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.baselines.recording import Recording, record, rounds, score_gradients
from legrad.errors import UnsupportedModelError
from legrad.explainer import Encoding, Explainer
from legrad.towers.tower import Tower

Reads: TypeAlias = Literal["any", "tokens", "cls", "cls or pooler"]


class Baseline(Explainer):
    """A method beside LeGrad, over the 0-based `layers` of a tower."""

    reads: ClassVar[Reads] = "cls"
    """How the tower must read an image: in any way, by tokens (without a pooler), by CLS, or by
    CLS or the query of a pooler."""

    takes_layers: ClassVar[bool] = True
    """Whether the formula leaves a choice of blocks."""

    def __init__(self, tower: Tower, layers: tuple[int, ...]) -> None:
        """Explain `tower` by its 0-based `layers`.

        Raises:
            UnsupportedModelError: the tower is not read in the way that the method needs.
        """
        if tower.pooler is not None:
            fits = self.reads in ("any", "cls or pooler")
        else:
            has_cls = not tower.average and tower.prefix_count > 0
            fits = has_cls or self.reads in ("any", "tokens")
        if not fits:
            raise UnsupportedModelError(
                f"{type(self).__name__} of this tower",
                f"the method is defined for images that are read by {self.reads}",
            )
        self._tower = tower
        self._layers = layers

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """The 0-based blocks that the method's paper uses, of `depth`."""
        return range(depth)

    def _on_grid(
        self, relevance: Float[Tensor, "G N"], grid: tuple[int, int]
    ) -> Float[Tensor, "G gh gw"]:
        """Relevance of each token without the prefix, as rows and columns of patches."""
        return relevance[:, self._tower.prefix_count :].reshape(len(relevance), *grid)


@dataclass(frozen=True)
class ImageMaps(Encoding):
    """An encoding whose maps depend on the image alone."""

    maps: Float[Tensor, "B gh gw"]


class AttentionMethod(Baseline):
    """A method that looks at attention only: every text of an image has the same map."""

    encoding = ImageMaps

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> ImageMaps:
        """One forward pass and the map of each image."""
        recording = record(self._tower, images, self._layers[0], graph=False)
        maps = self._on_grid(self._relevance(recording), recording.grid)
        return ImageMaps(recording.embedding, recording.grid, maps)

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, ImageMaps)
        return encoding.maps[pairs]

    @abstractmethod
    def _relevance(self, recording: Recording) -> Float[Tensor, "B N"]:
        """Relevance of each token in the wide type, prefix included."""


class GradientMethod(Baseline):
    """A method that differentiates the model's own score, for all texts over one forward pass."""

    encoding = Recording

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Recording:
        """One forward pass with explicit attention that keeps its autograd graph."""
        return record(self._tower, images, self._first, graph=True)

    @property
    def _first(self) -> int:
        """The first block to record."""
        return self._layers[0]

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, Recording)
        raw = encoding.embedding.new_zeros((len(pairs), *encoding.grid))
        targets = self._targets(encoding)
        for images, queries in rounds(pairs, raw.device):
            gradients = score_gradients(encoding, targets, text[queries.cpu()], images)
            values = [target.detach()[images].to(raw.dtype) for target in targets]
            gradients = [gradient.to(raw.dtype) for gradient in gradients]
            raw[queries] = self._on_grid(self._relevance(values, gradients), encoding.grid)
        return raw

    @abstractmethod
    def _targets(self, recording: Recording) -> list[Tensor]:
        """What the score is differentiated by."""

    @abstractmethod
    def _relevance(self, values: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, "G N"]:
        """Relevance of each token from the targets and ∂s/∂target, prefix included."""


@dataclass(frozen=True)
class PatchFeatures(Encoding):
    """An encoding with a vector per patch that a text is compared with."""

    features: Float[Tensor, "B n E"]


class DenseMethod(Baseline):
    """A method that gives every patch a vector in the text's space: a text costs one product."""

    encoding = PatchFeatures

    reads: ClassVar[Reads] = "tokens"

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> PatchFeatures:
        """One forward pass, and the vectors of the patches."""
        grid = self._tower.grid(images)
        output, features = self._forward(images, grid)
        return PatchFeatures(self._tower.embedding(output), grid, features)

    @torch.no_grad()
    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, PatchFeatures)
        features = encoding.features
        text = text.to(features)
        raw = features.new_zeros(len(pairs), features.shape[1])
        for image in set(pairs):
            queries = [query for query, owner in enumerate(pairs) if owner == image]
            raw[queries] = text[queries] @ features[image].T
        return raw.view(len(pairs), *encoding.grid)

    @abstractmethod
    def _forward(
        self, images: Float[Tensor, "B 3 H W"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B n E"]]:
        """The output of the last block, and the vectors of the patches in the wide type."""

    def _features(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B n E"]:
        """The head's reading of every patch token, of unit length for image-text models."""
        patches = tokens[:, self._tower.prefix_count :]
        return self._tower.head.embed(patches.to(self._tower.wide))


def descend(
    row: Float[Tensor, "G N"], matrices: Iterable[Float[Tensor, "G N N"]]
) -> Float[Tensor, "G N"]:
    """Row · M^L ··· M^1 for `matrices` M^1 … M^L: one row of the product of all blocks.

    From the left, so that every product is a vector with a matrix.
    """
    for matrix in reversed(list(matrices)):
        row = (row[:, None] @ matrix)[:, 0]
    return row


def cls_row(like: Float[Tensor, "G N N"]) -> Float[Tensor, "G N"]:
    """The unit row of token 0."""
    row = like.new_zeros(like.shape[:2])
    row[:, 0] = 1
    return row


def plus_identity(matrix: Float[Tensor, "G N N"]) -> Float[Tensor, "G N N"]:
    """M + I, the residual connection around the attention."""
    return matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
