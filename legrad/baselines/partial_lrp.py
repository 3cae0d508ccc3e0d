"""Partial LRP (Voita et al., arXiv 1905.09418): relevance of the last attention alone."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from legrad.baselines.recording import Recording
from legrad.baselines.relevance import RelevanceMethod
from legrad.baselines.rules import Rules


class PartialLrp(RelevanceMethod):
    """E = mean_h ReLU(R_A)_{h,CLS}, R_A the relevance of the last block's attention. Maps are ≥ 0.

    Several `layers` are averaged. Not for models in half precision.
    """

    rules = Rules(own=False)

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """The last block."""
        return [depth - 1]

    def _relevance(
        self, recording: Recording, text: Float[Tensor, "G E"], images: Int[Tensor, " G"]
    ) -> Float[Tensor, "G gh gw"]:
        below = reversed(range(len(self._tower.blocks)))
        rows = [
            relevant.weights.clamp(min=0).mean(dim=1)[:, 0]
            for layer, relevant in zip(
                below, self._propagate(recording, text, images), strict=False
            )
            if layer in self._layers
        ]
        return self._on_grid(sum(rows[1:], rows[0]) / len(rows), recording.grid)
