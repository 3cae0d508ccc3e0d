"""Raw attention: where CLS, or the query of a pooler, looks in the last block."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import AttentionMethod
from legrad.baselines.recording import Recording


class RawAttention(AttentionMethod):
    """E = mean_h A_{h,CLS}, of the last block (LeGrad, arXiv 2404.03214, eq. 12).

    With a pooler, the attention of its query instead. Maps are ≥ 0.
    """

    reads = "cls or pooler"

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """The last block."""
        return [depth - 1]

    def _relevance(self, recording: Recording) -> Float[Tensor, "B N"]:
        wide = self._tower.wide
        if recording.pool_weights is not None:
            return recording.pool_weights.mean(dim=1, dtype=wide)[:, 0]
        steps = [recording.steps[layer - self._layers[0]] for layer in self._layers]
        rows = [step.weights[:, :, 0].mean(dim=1, dtype=wide) for step in steps]
        return sum(rows[1:], rows[0]) / len(rows)
