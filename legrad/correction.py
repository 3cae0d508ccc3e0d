"""The empty-prompt correction: what a text without content finds is no finding.

SigLIP's maps have hot cells that appear for every text, wherever it is (LeGrad, arXiv 2404.03214,
appendix B.5, eq. 13). The map of a dummy text shows them, for any method and on any tower.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.arguments import number
from legrad.explainer import Encoding, Explainer, checked_pairs
from legrad.heatmap import minmax


class EmptyPromptCorrection(Explainer):
    """Clears the cells where the min-max-normalised map of the dummy text exceeds a threshold.

    They become 0, or the lowest value of a map that has negative ones: what is taken out must not
    come out on top. Where a method cuts off what is negative, they become 0 in any case, and the
    map of the dummy text is cut off before it is normalised. A cell is one of the raw map, before
    any upsampling; a threshold of 1 changes nothing.
    """

    def __init__(
        self, explainer: Explainer, empty_text: Float[Tensor, "1 E"], threshold: float
    ) -> None:
        """Correct the maps of `explainer`.

        Args:
            explainer: whose maps.
            empty_text: embedding of the dummy text, L2-normalised: the authors' code uses "a photo
                of a", their paper "a photo of".
            threshold: 0.8 in both.

        Raises:
            TypeError: a threshold that is no number.
            ValueError: a threshold outside 0..1.
        """
        threshold = number("empty_threshold", threshold, "a number in 0..1")
        if not 0 <= threshold <= 1:
            raise ValueError(f"empty_threshold={threshold}: must lie in 0..1")
        self._explainer = explainer
        self._empty = empty_text
        self._threshold = threshold
        self.encoding = explainer.encoding
        self.heat_order = explainer.heat_order
        self.pixel_maps = explainer.pixel_maps

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Encoding:
        """The encoding of the corrected explainer."""
        return self._explainer.encode(images)

    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Image embeddings and corrected maps; the dummy text is one more text of each image."""
        pairs = checked_pairs((len(images), self._empty.shape[1]), text, image_index)
        more_text, more_index = self._with_empty(text, pairs, image_index.device)
        embedding, raw = self._explainer.explain(images, more_text, more_index)
        return embedding, self._corrected(raw, pairs)

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        more_text, more_index = self._with_empty(text, pairs, encoding.embedding.device)
        return self._corrected(self._explainer.maps(encoding, more_text, more_index), pairs)

    def _with_empty(
        self, text: Float[Tensor, "Q E"], pairs: Sequence[int], device: torch.device
    ) -> tuple[Float[Tensor, "R E"], Int[Tensor, " R"]]:
        """The texts, and after them the dummy text once for every image that has one."""
        owners = sorted(set(pairs))
        empty = self._empty.to(text).expand(len(owners), -1)
        return torch.cat([text, empty]), torch.tensor([*pairs, *owners], device=device).long()

    def _corrected(
        self, raw: Float[Tensor, "R gh gw"], pairs: Sequence[int]
    ) -> Float[Tensor, "Q gh gw"]:
        owners = {image: row for row, image in enumerate(sorted(set(pairs)))}
        maps, empty = raw[: len(pairs)], raw[len(pairs) :]
        bottom = maps.amin(dim=(1, 2), keepdim=True).clamp(max=0)
        if self.heat_order.clips:
            empty, bottom = empty.clamp(min=0), torch.zeros_like(bottom)
        hot = minmax(empty) > self._threshold
        return torch.where(hot[[owners[image] for image in pairs]], bottom, maps)
