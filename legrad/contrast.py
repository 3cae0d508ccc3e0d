"""LeGrad x TextSpan: where both find a text, and other texts are not found as much.

LeGrad's maps are smooth and bleed; TextSpan's, less the mean map of other texts, are sharp about
which object it is. Their geometric mean was better than either on scenes that chose nothing
(docs/masks.md of the project has the figures). It needs no second forward pass, and any number of
other texts costs nothing: TextSpan is linear in the text, so that the mean map is that of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.baselines.base import PatchFeatures
from legrad.baselines.text_span import TextSpan
from legrad.engines.autograd import AutogradLeGrad
from legrad.engines.layerwise import LayerwiseLeGrad
from legrad.explainer import Encoding, Explainer
from legrad.towers.attention import FusedStep
from legrad.towers.block import Block


@dataclass(frozen=True)
class BothEncodings(Encoding):
    """What LeGrad and TextSpan keep of the same images."""

    legrad: Encoding
    span: PatchFeatures


class LeGradTextSpan(Explainer):
    """The geometric mean of LeGrad's maps and of TextSpan's contrasted ones.

    With L the raw map of LeGrad, S that of TextSpan and S̄ the mean of TextSpan's maps of the texts
    `background` [C, E], a cell of the raw map is √((L − min L) · (C − min C)), C = max(S − S̄, 0).
    But for one factor a map this is √(minmax(L) · minmax(C)), so that heat is the same, while raw
    maps of an image remain comparable with each other, and of views can be averaged.

    `layers` are LeGrad's; TextSpan takes all blocks. Without `background` nothing is subtracted:
    the mean over all classes, those that are looked for among them, is what the method is meant
    for. Maps are ≥ 0. The closed form makes both maps from one forward pass.
    """

    encoding = BothEncodings

    def __init__(self, legrad: LayerwiseLeGrad | AutogradLeGrad, span: TextSpan) -> None:
        """Take LeGrad and TextSpan of the same tower; `span` has the background."""
        self._legrad, self._span = legrad, span
        self.heat_order = legrad.heat_order

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> BothEncodings:
        """What both keep, of one forward pass; of two where LeGrad is its slow reference."""
        encoding: Encoding
        if isinstance(self._legrad, AutogradLeGrad):
            encoding, span = self._legrad.encode(images), self._span.encode(images)
        else:
            watch = _Watch(self._span)
            encoding = self._legrad.encode(images, watch)
            span = watch.features(encoding.embedding, encoding.grid)
        return BothEncodings(encoding.embedding, encoding.grid, encoding, span)

    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Embeddings and maps; LeGrad's layers are explained as they are passed, then forgotten."""
        if isinstance(self._legrad, AutogradLeGrad):
            return super().explain(images, text, image_index)
        watch = _Watch(self._span)
        embedding, found = self._legrad.explain(images, text, image_index, watch)
        span = watch.features(embedding, (found.shape[1], found.shape[2]))
        return embedding, _both(found, self._span.maps(span, text, image_index))

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, BothEncodings)
        index = torch.tensor(pairs, dtype=torch.long, device=encoding.embedding.device)
        return _both(
            self._legrad.maps(encoding.legrad, text, index),
            self._span.maps(encoding.span, text, index),
        )


class _Watch:
    """Reads TextSpan off the forward pass that LeGrad makes."""

    def __init__(self, span: TextSpan) -> None:
        self._terms = span.terms()
        self._cls: Tensor | None = None

    def __call__(self, index: int, block: Block, step: FusedStep) -> None:
        assert step.of_first is not None
        self._terms.add(index, block, step.of_first, step.values)
        self._cls = step.output[:, 0]

    @torch.no_grad()
    def features(self, embedding: Float[Tensor, "B E"], grid: tuple[int, int]) -> PatchFeatures:
        """Of the pass that has been made."""
        assert self._cls is not None
        return PatchFeatures(embedding, grid, self._terms.read(self._cls))


def _both(
    found: Float[Tensor, "Q gh gw"], span: Float[Tensor, "Q gh gw"]
) -> Float[Tensor, "Q gh gw"]:
    """The geometric mean of what is above the lowest value of each; not finite where one is not."""
    return (_above_lowest(found) * _above_lowest(span.clamp(min=0))).sqrt()


def _above_lowest(maps: Float[Tensor, "Q gh gw"]) -> Float[Tensor, "Q gh gw"]:
    return maps - maps.amin(dim=(1, 2), keepdim=True)
