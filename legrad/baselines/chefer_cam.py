"""CheferCAM (arXiv 2103.15679): attention times its gradient, multiplied through the blocks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import GradientMethod, cls_row, descend, plus_identity
from legrad.baselines.recording import Recording
from legrad.towers.tower import Tower


class CheferCam(GradientMethod):
    """E = row CLS of R, where R ← R + Ā^l R from R = I, and Ā^l = mean_h ReLU(∂s/∂A^l ⊙ A^l).

    `layers=1` is the default of the authors' CLIP notebook, all blocks that of their ViT notebook
    and the default here. With a pooler E = Ā_pool (I + rownorm(R − I)), their rule for a decoder;
    `raw_r=True` leaves R as it is. Maps are ≥ 0.
    """

    reads = "cls or pooler"

    def __init__(self, tower: Tower, layers: tuple[int, ...], *, raw_r: bool = False) -> None:
        """Explain `tower`; see the class for `raw_r`."""
        super().__init__(tower, layers)
        self._raw_r = raw_r

    def _targets(self, recording: Recording) -> list[Tensor]:
        targets = [recording.steps[layer - self._first].weights for layer in self._layers]
        pool = recording.pool_weights
        return targets if pool is None else [*targets, pool]

    def _relevance(self, values: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, "G N"]:
        relevant = [
            (gradient * weights).clamp(min=0).mean(dim=1)
            for weights, gradient in zip(values, gradients, strict=True)
        ]
        if self._tower.pooler is None:
            return descend(cls_row(relevant[0]), map(plus_identity, relevant))
        *blocks, pool = relevant
        if self._raw_r:
            return descend(pool[:, 0], map(plus_identity, blocks))
        r = torch.eye(blocks[0].shape[-1], dtype=pool.dtype, device=pool.device)
        for block in blocks:
            r = r + block @ r
        added = r - torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
        sums = added.sum(dim=-1, keepdim=True)
        # A row without relevance stays zero instead of becoming 0/0.
        normed = added / sums.masked_fill(sums == 0, 1)
        return (pool @ plus_identity(normed))[:, 0]
