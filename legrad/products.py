"""The one large product of LeGrad's gradient: (x ⊙ u) F for one x per image and one u per text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from legrad import digits

MOST_UNEVEN = 16
"""How far the largest term of a product may be expected to stand out from their root mean square.

With it four of the 22 bits that digits hold are lost to all other terms. A normal distribution of
3,072 terms reaches 4.
"""


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
        """Add (x ⊙ u) F to `total` in place, for each text's u; `x` may be overwritten.

        `bound` is above every |x| of its row, and not a number where the row has one.
        """


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
        """In one product, added onto the rest in place: one pass over [N, D] less per text."""
        y = x[:, None] * u[:, :, None]
        total.view(-1, total.shape[-1]).addmm_(y.view(-1, y.shape[-1]), self.matrix)


class DigitProduct(Product):
    """A float32 product from products of 8-bit digits, see `legrad.digits`."""

    def __init__(self, matrix: Float[Tensor, "M D"]) -> None:
        """Split a matrix into digits and forget it.

        Every row of it is first brought to the same size, so that a large one takes no digits from
        the others; u takes over the size.
        """
        self._sizes = digits.largest(matrix)[:, 0]
        self._factor = digits.Factor((matrix / self._sizes[:, None]).T)

    def add_to(
        self,
        total: Float[Tensor, "G P N D"],
        x: Float[Tensor, "G N M"],
        u: Float[Tensor, "G P M"],
        bound: Float[Tensor, "G N 1"],
    ) -> None:
        """With the digits of x ⊙ u, of one text of one image after the other."""
        images, texts, tokens, width = total.shape
        sized = u * self._sizes
        size = digits.largest(sized)
        steps = sized * (digits.STEPS / size)
        split = digits.empty(images * texts, tokens, x.shape[-1])
        for image in range(images):
            fraction = x[image].div_(bound[image])
            for text in range(texts):
                pair = image * texts + text
                digits.split(fraction, steps[image, text, None], split[:, pair])
        product = self._factor.multiply(split.flatten(1, 2)).view(images, texts, tokens, width)
        total.addcmul_(product, bound[:, None] * (size[..., None] / digits.STEPS))


MakeProduct: TypeAlias = Callable[[Float[Tensor, "M D"], Float[Tensor, "C M"]], Product]


def dense_product(matrix: Float[Tensor, "M D"], back: Float[Tensor, "C M"]) -> Product:
    """The ordinary product."""
    return DenseProduct(matrix)


def best_product(matrix: Float[Tensor, "M D"], back: Float[Tensor, "C M"]) -> Product:
    """The fastest product that keeps the precision of its type.

    Args:
        matrix: F.
        back: what u is the product with of an unknown vector: the lengths of its columns tell how
            large each channel of u is to be expected, up to a common factor.
    """
    if not digits.are_faster(matrix):
        return DenseProduct(matrix)
    terms = back.norm(dim=0) * digits.largest(matrix)[:, 0]
    even = terms.amax() <= MOST_UNEVEN * terms.square().mean().sqrt()
    return DigitProduct(matrix) if even else DenseProduct(matrix)
