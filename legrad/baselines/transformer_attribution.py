"""Transformer attribution (Chefer et al., arXiv 2012.09838): relevance and gradient, rolled out."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from legrad.baselines.base import cls_row, descend, plus_identity
from legrad.baselines.recording import Recording, score_gradients
from legrad.baselines.relevance import RelevanceMethod
from legrad.baselines.rules import Rules


class TransformerAttribution(RelevanceMethod):
    """E = row CLS of (C^L + I) ··· (C^1 + I) with C^l = mean_h ReLU(∂s/∂A^l ⊙ R_A^l).

    R_A^l is the relevance of block l's attention by the authors' own rules; rows are not
    normalised, as in their code. Maps are ≥ 0. Not for models in half precision.
    """

    rules = Rules(own=True)
    graph = True

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """All but the first, as in the authors' code."""
        return range(min(1, depth - 1), depth)

    def _relevance(
        self, recording: Recording, text: Float[Tensor, "G E"], images: Int[Tensor, " G"]
    ) -> Float[Tensor, "G gh gw"]:
        targets = [step.weights for step in recording.steps]
        gradients = score_gradients(recording, targets, text, images)
        relevant = list(self._propagate(recording, text, images))[::-1]
        first = self._layers[0]
        matrices = []
        for layer in self._layers:
            weights = relevant[layer - first].weights
            product = gradients[layer - first] * weights
            matrices.append(plus_identity(product.clamp(min=0).mean(dim=1)))
        return self._on_grid(descend(cls_row(matrices[0]), matrices), recording.grid)
