"""A linear layer as the blocks of a tower hold it."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Linear:
    """References to a weight [out, in] and its bias, which need not be a module of their own."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None

    @classmethod
    def of(cls, module: nn.Linear) -> Linear:
        """The weights of a module, by reference."""
        return cls(module.weight, module.bias)

    def __call__(self, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
        """X Wᵀ + b."""
        return F.linear(x, self.weight, self.bias)

    @property
    def inputs(self) -> int:
        """How many channels go in."""
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        """How many channels come out."""
        return self.weight.shape[0]
