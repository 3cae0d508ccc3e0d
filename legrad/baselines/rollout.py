"""Attention rollout (Abnar & Zuidema, arXiv 2005.00928)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import AttentionMethod, cls_row, descend, plus_identity
from legrad.baselines.recording import Recording
from legrad.towers.tower import Tower


class Rollout(AttentionMethod):
    """E = row CLS of M^L ··· M^1 with M^l = rownorm(mean_h A^l + I). Maps are ≥ 0.

    With a pooler the row is the mean attention of its query, as Chefer et al. (arXiv 2103.15679)
    treat a decoder; `row0=True` takes the row of token 0 all the same, which for SigLIP is the
    top-left patch.
    """

    reads = "cls or pooler"

    def __init__(self, tower: Tower, layers: tuple[int, ...], *, row0: bool = False) -> None:
        """Explain `tower`; see the class for `row0`."""
        super().__init__(tower, layers)
        self._row0 = row0

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """All but the first, as in the code of Chefer et al. that published numbers come from."""
        return range(min(1, depth - 1), depth)

    def _relevance(self, recording: Recording) -> Float[Tensor, "B N"]:
        first, wide = self._layers[0], self._tower.wide
        matrices = [
            plus_identity(recording.steps[layer - first].weights.mean(dim=1, dtype=wide))
            for layer in self._layers
        ]
        matrices = [matrix / matrix.sum(dim=-1, keepdim=True) for matrix in matrices]
        if recording.pool_weights is None or self._row0:
            return descend(cls_row(matrices[0]), matrices)
        return descend(recording.pool_weights.mean(dim=1, dtype=wide)[:, 0], matrices)
