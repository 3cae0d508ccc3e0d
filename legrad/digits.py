"""Products of float32 matrices on the 8-bit matrix units of a CPU (AMX).

Each number becomes a whole number of steps, a fraction of the largest of its row, and that three
digits to the base 256. Products of digits are whole numbers, which a sum in int32 holds exactly; of
the nine pairs of digits the six that matter are multiplied, and added up in float32:

    x = 2^16 x_2 + 2^8 x_1 + x_0    x w ≈ 2^32 x_2 w_2 + 2^24 (x_2 w_1 + x_1 w_2)
                                          + 2^16 (x_2 w_0 + x_1 w_1 + x_0 w_2)

For normally distributed numbers the error is two to three times that of a float32 product, and it
grows with how far the largest number of a row stands out from the rest: whoever multiplies so has
to look at that. This is the scheme of Ozaki et al. (Numerical Algorithms 59, 2012), on whole
numbers as Ootomo, Ozaki and Yokota have it (arXiv 2306.11975).
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

COUNT = 3
STEPS = float((1 << 22) - (1 << 16))
"""How many steps the largest number of a row of X is."""
# Bits 0..22 of a float32 in [2^23, 2^24) are a whole number. Around the middle of that range each
# digit, as an unsigned byte, lies that of `ZEROS` above the digit that is meant.
ZEROS = (64, 128, 128)
ORIGIN = float((1 << 23) + (ZEROS[0] << 16) + (ZEROS[1] << 8) + ZEROS[2])

WEIGHT_STEPS = float((1 << 23) - (1 << 16))
"""The same of W, which is split but once: its highest digit can use all eight bits."""

SMALLEST = 1e-30
"""Of a row's largest number, so that steps per unit stay finite; smaller rows lose digits."""
PAIRS = ((0, 2), (1, 1), (0, 1), (2, 0), (1, 0), (0, 0))
"""Digits of X and W, 0 the highest; in the order of those of W, which then are in the cache."""
MOST_INPUTS = ((1 << 31) - 1) // (255 * 128)
"""For which an int32 holds the sum."""
LEAST_ELEMENTS = 1 << 19
"""Of a matrix for which it pays: that of ViT-S has 589,824."""


def largest(x: Float[Tensor, "*n K"]) -> Float[Tensor, "*n 1"]:
    """The largest size in each row, at least `SMALLEST`; not a number where the row has one."""
    return x.abs().amax(dim=-1, keepdim=True).clamp_(min=SMALLEST)


def empty(*shape: int) -> UInt8[Tensor, "C ..."]:
    """Room for the digits of a tensor, the highest first."""
    return torch.empty(COUNT, *shape, dtype=torch.uint8)


def split(
    x: Float[Tensor, "R K"], steps: Float[Tensor, "#R #K"], out: UInt8[Tensor, "C R K"]
) -> None:
    """Write the digits of round(x ⊙ steps), each raised by its `ZEROS`; |x ⊙ steps| ≤ `STEPS`."""
    shifted = torch.addcmul(x.new_tensor(ORIGIN), x, steps).view(torch.int32)
    out[2] = shifted  # to a byte: the lowest eight bits
    out[1] = shifted.bitwise_right_shift_(8)
    out[0] = shifted.bitwise_right_shift_(8)


def split_weight(
    weight: Float[Tensor, "N K"], steps: Float[Tensor, "N 1"]
) -> list[Int8[Tensor, "N K"]]:
    """The digits of round(W ⊙ steps), the highest first; |W ⊙ steps| ≤ `WEIGHT_STEPS`."""
    raised = (weight * steps).round_().to(torch.int32) + 0x808080
    return [((raised >> shift) - 128).to(torch.int8) for shift in (16, 8, 0)]


class Factor:
    """The right side of a product, W [N, K]: its digits, in the order that the kernel reads."""

    def __init__(self, weight: Float[Tensor, "N K"]) -> None:
        """Split a matrix, row by row."""
        size = largest(weight)
        self._digits = [
            torch.ops.onednn.qlinear_prepack(digit.contiguous(), None)
            for digit in split_weight(weight, WEIGHT_STEPS / size)
        ]
        step = size[:, 0] / WEIGHT_STEPS
        self._scales = [step * 2.0 ** (8 * (4 - order)) for order in range(COUNT)]
        self._no_zeros = torch.zeros(len(weight), dtype=torch.int32)

    def multiply(self, digits: UInt8[Tensor, "C R K"]) -> Float[Tensor, "R N"]:
        """X Wᵀ for the digits of X as `split` writes them, in steps of X."""
        total: Tensor | None = None
        for left, right in PAIRS:
            # As PyTorch's compiler calls it: an affine x, an affine W, what to add to the product.
            total = torch.ops.onednn.qlinear_pointwise.binary(
                digits[left], 1.0, ZEROS[left],
                self._digits[right], self._scales[left + right], self._no_zeros,
                total, None, 1.0, 0, torch.float32,
                1.0, 0, "none" if total is None else "sum", 1.0, "none", [], "",
            )  # fmt: skip
        assert total is not None
        return total


def are_faster(matrix: Float[Tensor, "K N"]) -> bool:
    """Whether products by a matrix are faster by digits: float32, large, on a CPU with AMX."""
    return (
        matrix.device.type == "cpu"
        and matrix.dtype == torch.float32
        and matrix.numel() >= LEAST_ELEMENTS
        and matrix.shape[0] <= MOST_INPUTS
        and torch.cpu._is_amx_tile_supported()
        and are_exact()
    )


@functools.cache
def are_exact() -> bool:
    """Whether oneDNN multiplies bytes exactly here: told to use old instructions, it does not.

    ONEDNN_MAX_CPU_ISA can tell it so. They add two products in 16 bits, and cut off what is larger.
    """
    x = torch.linspace(-1, 1, 8192).view(32, 256)
    size, out = largest(x), empty(*x.shape)
    split(x, STEPS / size, out)
    found = Factor(x).multiply(out) * (size / STEPS)
    expected = x.double() @ x.double().T
    return float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
