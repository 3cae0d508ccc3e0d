"""GradCAM on the tokens of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from legrad.baselines.base import GradientMethod
from legrad.baselines.recording import Recording
from legrad.towers.tower import Tower


class GradCam(GradientMethod):
    """E_j = ReLU(1/D Σ_k w_k Z_{j,k}) with w_k = 1/n Σ_i ∂s/∂Z_{i,k}, of the output Z of a block.

    LeGrad, arXiv 2404.03214, eq. 10: n counts patches, the sum over i includes CLS unless
    `with_cls=False`. Several `layers` are averaged without normalising each. Maps are ≥ 0.
    """

    reads = "any"

    def __init__(self, tower: Tower, layers: tuple[int, ...], *, with_cls: bool = True) -> None:
        """Explain `tower`; see the class for `with_cls`.

        Raises:
            ValueError: without CLS the only block is the last of a tower that is read by CLS: no
                other token of its output has a gradient.
        """
        last = len(tower.blocks) - 1
        if not with_cls and tower.pooler is None and not tower.average:
            if layers == (last,):
                raise ValueError(
                    f"with_cls=False, layers=[{last}]: only CLS has a gradient at the last block's "
                    "output, so that the map would be zero"
                )
            layers = tuple(layer for layer in layers if layer != last)
        super().__init__(tower, layers)
        self._with_cls = with_cls

    @staticmethod
    def default_layers(depth: int) -> Sequence[int]:
        """Two thirds up: the paper found block 8 of 12 (1-based) best."""
        return [max(0, round(depth * 2 / 3) - 1)]

    def _targets(self, recording: Recording) -> list[Tensor]:
        return [recording.steps[layer - self._first].output for layer in self._layers]

    def _relevance(self, values: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, "G N"]:
        prefix = self._tower.prefix_count
        total = values[0].new_zeros(values[0].shape[:2])
        for tokens, gradient in zip(values, gradients, strict=True):
            summed = gradient if self._with_cls else gradient[:, prefix:]
            weight = summed.sum(dim=1) / (tokens.shape[1] - prefix)
            total += (tokens @ weight[:, :, None])[:, :, 0].clamp(min=0) / tokens.shape[2]
        return total / len(values)
