"""Layer-wise relevance propagation: how relevance R of an output is shared among its inputs.

Two sets of rules from the code of Chefer et al. (arXiv 2012.09838) with α = 1: `Rules(own=True)`
are those of their transformer attribution, `own=False` those of LRP as they compare with it.
Nothing is summed over the first dimension, so that a batch of pairs gives what each would alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-9


@dataclass(frozen=True)
class Rules:
    """One of the two sets of rules."""

    own: bool

    def linear(
        self,
        x: Float[Tensor, "*n in"],
        weight: Float[Tensor, "out in"],
        r: Float[Tensor, "*n out"],
    ) -> Float[Tensor, "*n in"]:
        """R of the input of x Wᵀ: by the parts of W⁺x⁺ and W⁻x⁻, together or each for itself."""
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        above, below = x.clamp(min=0), x.clamp(max=0)
        of_above, of_below = above @ positive.T, below @ negative.T
        s_above, s_below = self._shares(r, of_above, of_below)
        return above * (s_above @ positive) + below * (s_below @ negative)

    def inner(
        self, x: Float[Tensor, "G in"], weight: Float[Tensor, "G in"], r: Float[Tensor, "G 1"]
    ) -> Float[Tensor, "G in"]:
        """`linear` for an output that has a weight of its own in every row."""
        of_above = x.clamp(min=0) * weight.clamp(min=0)
        of_below = x.clamp(max=0) * weight.clamp(max=0)
        s_above, s_below = self._shares(
            r, of_above.sum(dim=1, keepdim=True), of_below.sum(dim=1, keepdim=True)
        )
        return of_above * s_above + of_below * s_below

    def add(
        self, a: Float[Tensor, G * n], b: Float[Tensor, G * n], r: Float[Tensor, G * n]
    ) -> tuple[Float[Tensor, G * n], Float[Tensor, G * n]]:
        """R of both terms of a + b; the own rule then scales each to its share of the total."""
        share = divide(r, a + b)
        of_a, of_b = a * share, b * share
        if not self.own:
            return of_a, of_b
        sum_a, sum_b, total = (_total(part) for part in (of_a, of_b, r))
        absolute = sum_a.abs() + sum_b.abs()
        return (
            of_a * divide(divide(sum_a.abs(), absolute) * total, sum_a),
            of_b * divide(divide(sum_b.abs(), absolute) * total, sum_b),
        )

    def _shares(self, r: Tensor, above: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        if self.own:
            share = divide(r, above + below)
            return share, share
        return divide(r, above), divide(r, below)


def matmul(
    x: Float[Tensor, "*n i k"], y: Float[Tensor, "*n k j"], r: Float[Tensor, "*n i j"]
) -> tuple[Float[Tensor, "*n i k"], Float[Tensor, "*n k j"]]:
    """R of both factors of x y, half each."""
    share = divide(r, x @ y)
    return x * (share @ y.mT) / 2, y * (x.mT @ share) / 2


def copies(x: Float[Tensor, "*n"], r: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """R of a tensor whose copies have relevance `r` together."""
    return x * divide(r, x)


def patch_embedding(
    pixels: Float[Tensor, "G 3 H W"],
    weight: Float[Tensor, "D 3 p q"],
    r: Float[Tensor, "G D gh gw"],
) -> Float[Tensor, "G H W"]:
    """R of the pixels below a patch embedding, summed over colours.

    The z^B rule (Montavon et al., arXiv 1512.02479), bounded by each image's extreme values.
    """
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    low = torch.zeros_like(pixels) + pixels.amin(dim=(1, 2, 3), keepdim=True)
    high = torch.zeros_like(pixels) + pixels.amax(dim=(1, 2, 3), keepdim=True)
    stride = weight.shape[-2:]

    def forward(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, stride=stride)

    def back(s: Tensor, w: Tensor) -> Tensor:
        return F.conv_transpose2d(s, w, stride=stride)

    z = forward(pixels, weight) - forward(low, positive) - forward(high, negative)
    share = r / (z + EPSILON)
    relevance = pixels * back(share, weight) - low * back(share, positive)
    return (relevance - high * back(share, negative)).sum(dim=1)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """A / (b + 1e-9), and 0 where b is 0."""
    return torch.where(b == 0, 0, a / (b + EPSILON))


def _total(x: Float[Tensor, G * n]) -> Tensor:
    return x.sum(dim=tuple(range(1, x.ndim)), keepdim=True)
