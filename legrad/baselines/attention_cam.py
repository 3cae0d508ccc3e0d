"""AttentionCAM: GradCAM with the heads of an attention map as its channels."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import GradientMethod
from legrad.baselines.recording import Recording
from legrad.towers.tower import Tower


class AttentionCam(GradientMethod):
    """E = Σ_h w_h A_{h,CLS} of the last block, with w_h the mean of ∂s/∂A_h.

    `form="paper"` (LeGrad, arXiv 2404.03214, eq. 11): w_h is the mean over all N² entries; maps are
    signed. `form="te"` (code of Chefer et al., arXiv 2012.09838): the mean over CLS's row without
    the prefix; the sum becomes a mean, and its negative part is cut off. With a pooler, the
    attention of its query instead.
    """

    reads = "cls or pooler"

    def __init__(self, tower: Tower, layers: tuple[int, ...], *, form: str = "paper") -> None:
        """Explain `tower`; see the class for `form`.

        Raises:
            ValueError: `form` is neither "paper" nor "te".
        """
        if form not in ("paper", "te"):
            raise ValueError(f"form={form!r}; known: paper, te")
        super().__init__(tower, layers)
        self._te = form == "te"

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """The last block."""
        return [depth - 1]

    @property
    def _first(self) -> int:
        return len(self._tower.blocks) if self._tower.pooler is not None else self._layers[0]

    def _targets(self, recording: Recording) -> list[Tensor]:
        if recording.pool_weights is not None:
            return [recording.pool_weights]
        return [recording.steps[layer - self._first].weights for layer in self._layers]

    def _relevance(self, values: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, "G N"]:
        maps = [self._cam(*pair) for pair in zip(values, gradients, strict=True)]
        return sum(maps[1:], maps[0]) / len(maps)

    def _cam(
        self, weights: Float[Tensor, "G h M N"], gradient: Float[Tensor, "G h M N"]
    ) -> Float[Tensor, "G N"]:
        if self._te:
            importance = gradient[:, :, 0, self._tower.prefix_count :].mean(dim=2)
            return (importance[:, :, None] * weights[:, :, 0]).mean(dim=1).clamp(min=0)
        return (gradient.mean(dim=(2, 3))[:, :, None] * weights[:, :, 0]).sum(dim=1)
