"""The one large product of LeGrad's gradient: (x ⊙ u) F for one x per image and one u per text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from legrad import digits


class Product(ABC):
    """Multiplies by a matrix F."""

    @abstractmethod
    def add_to(
        self,
        total: Float[Tensor, "G P N D"],
        x: Float[Tensor, "G N M"],
        u: Float[Tensor, "G P M"],
        bound: Float[Tensor, "G N 1"],
    ) -> None:
        """Add (x ⊙ u) F to `total` in place, for each text's u; no |x| is above `bound`."""


@dataclass(frozen=True)
class DenseProduct(Product):
    """By the ordinary matrix product of the type of F."""

    matrix: Float[Tensor, "M D"]

    def add_to(
        self,
        total: Float[Tensor, "G P N D"],
        x: Float[Tensor, "G N M"],
        u: Float[Tensor, "G P M"],
        bound: Float[Tensor, "G N 1"],
    ) -> None:
        """In one product; `bound` is not needed."""
        y = x[:, None] * u[:, :, None]
        # The product is added onto the rest in place: one pass over [N, D] less per text.
        total.view(-1, total.shape[-1]).addmm_(y.view(-1, y.shape[-1]), self.matrix)


class DigitProduct(Product):
    """A float32 product from products of 8-bit digits, see `legrad.digits`."""

    def __init__(self, matrix: Float[Tensor, "M D"]) -> None:
        """Split a matrix into digits and forget it."""
        self._factor = digits.Factor(matrix.T)

    def add_to(
        self,
        total: Float[Tensor, "G P N D"],
        x: Float[Tensor, "G N M"],
        u: Float[Tensor, "G P M"],
        bound: Float[Tensor, "G N 1"],
    ) -> None:
        """With the digits of x ⊙ u, of one text of one image after the other."""
        images, texts, tokens, width = total.shape
        largest = u.abs().amax(dim=-1, keepdim=True).clamp_(min=digits.SMALLEST)
        steps = u * (digits.STEPS / largest)
        split = digits.empty(images * texts, tokens, x.shape[-1])
        for image in range(images):
            fraction = x[image] / bound[image]
            for text in range(texts):
                pair = image * texts + text
                digits.split(fraction, steps[image, text], split[:, pair])
        product = self._factor.multiply(split.flatten(1, 2)).view(images, texts, tokens, width)
        total.addcmul_(product, bound[:, None] * (largest[..., None] / digits.STEPS))


def best_product(matrix: Float[Tensor, "M D"]) -> Product:
    """The fastest product by `matrix` on its device, exact to the rounding of its type."""
    return DigitProduct(matrix) if digits.are_faster(matrix) else DenseProduct(matrix)
