"""Products by digits against float64, and the choice between the ways to multiply."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

import legrad
from legrad import Explainer, digits
from legrad.blocks import STEEPEST, gelu_gradient, quick_gelu_gradient
from legrad.closed_form import ClosedFormLeGrad
from legrad.products import DenseProduct, DigitProduct, best_product
from tests.legrad.conftest import EMBED_DIM, Case, make_case

amx = pytest.mark.skipif(
    not torch.cpu._is_amx_tile_supported(), reason="a CPU without AMX multiplies no digits"
)


def value(split: Tensor) -> Tensor:
    """What three digits [3, ...] stand for, in steps."""
    highest, middle, lowest = (
        digit.to(torch.int64) - zero for digit, zero in zip(split, digits.ZEROS, strict=True)
    )
    return 65536 * highest + 256 * middle + lowest


def digits_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Digits of a matrix and its steps, by row."""
    largest = x.abs().amax(dim=1, keepdim=True).clamp(min=digits.SMALLEST)
    out = digits.empty(*x.shape)
    digits.split(x, digits.STEPS / largest, out)
    return out, largest / digits.STEPS


@pytest.mark.parametrize("number", [0, 1, -1, 127, 128, -128, -129, 32767, 32768, -32768, -40000])
def test_digits_of_a_whole_number_of_steps(number: int) -> None:
    out = digits.empty(1, 1)
    digits.split(torch.tensor([[float(number)]]), torch.ones(1), out)
    assert value(out).item() == number


def test_digits_by_hand() -> None:
    out = digits.empty(1, 1)
    digits.split(torch.tensor([[3.0 * 65536 - 2 * 256 + 5]]), torch.ones(1), out)
    assert out[:, 0, 0].tolist() == [64 + 3, 128 - 2, 128 + 5]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_number_does_not_overflow(sign: int) -> None:
    out = digits.empty(1, 1)
    digits.split(torch.tensor([[sign * digits.STEPS]]), torch.ones(1), out)
    assert value(out).item() == sign * digits.STEPS


@given(st.integers(0, 2**32 - 1), st.floats(-30, 30), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_a_number_is_within_a_step_of_its_digits(
    seed: int, exponent: float, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(rows, columns, generator=generator).exp()
    x = 10**exponent * spread * torch.randn(rows, columns, generator=generator)
    out, step = digits_of(x)
    assert ((value(out) * step.double() - x.double()).abs() <= 0.8 * step).all()


@amx
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_the_product_of_digits_equals_that_of_the_numbers(
    seed: int, rows: int, columns: int, inputs: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(columns, inputs, generator=generator).exp()
    out, step = digits_of(x)
    actual = digits.Factor(weight).multiply(out) * step
    expected = x.double() @ weight.double().T
    # The bound of the module's text, of every term: its rounding and what is dropped.
    largest = x.abs().amax(dim=1, keepdim=True) * weight.abs().amax(dim=1)
    assert ((actual - expected).abs() <= inputs * largest * 2.0**-21).all()


@amx
def test_the_product_of_digits_is_about_as_exact_as_float32s() -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(100, 3072), torch.randn(768, 3072)
    out, step = digits_of(x)
    expected = x.double() @ weight.double().T

    def error(actual: Tensor) -> float:
        return float((actual - expected).pow(2).mean().sqrt() / expected.std())

    assert error(digits.Factor(weight).multiply(out) * step) <= 3 * error(x @ weight.T)


@amx
def test_sums_of_as_many_inputs_as_are_allowed_do_not_overflow() -> None:
    x = torch.full((1, digits.MOST_INPUTS), 1.0)
    weight = -torch.ones(2, digits.MOST_INPUTS)
    out, step = digits_of(x)
    actual = digits.Factor(weight).multiply(out) * step
    torch.testing.assert_close(actual, torch.full((1, 2), -float(digits.MOST_INPUTS)))


def products(matrix: Tensor) -> list[DenseProduct | DigitProduct]:
    return [DenseProduct(matrix), DigitProduct(matrix)]


@amx
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("texts", [1, 4])
def test_both_products_add_the_same(images: int, texts: int) -> None:
    torch.manual_seed(images + 10 * texts)
    bound = torch.rand(images, 7, 1) + 0.1
    x = bound * (2 * torch.rand(images, 7, 96) - 1)
    u, start = torch.randn(images, texts, 96), torch.randn(images, texts, 7, 40)
    dense, split = products(torch.randn(96, 40))
    expected, actual = start.clone(), start.clone()
    dense.add_to(expected, x, u, bound)
    split.add_to(actual, x, u, bound)
    torch.testing.assert_close(actual, expected, rtol=2e-6, atol=2e-5)


@amx
def test_rows_of_zeros_and_texts_of_zeros() -> None:
    start, x, u = torch.randn(1, 2, 3, 8), torch.randn(1, 3, 32), torch.randn(1, 2, 32)
    x[:, 1], u[:, 1] = 0, 0
    total = start.clone()
    DigitProduct(torch.randn(32, 8)).add_to(total, x, u, torch.full((1, 3, 1), 5.0))
    assert torch.equal(total[:, :, 1], start[:, :, 1])
    assert torch.equal(total[:, 1], start[:, 1])


@amx
def test_a_number_that_is_none_stays_seen() -> None:
    x, u, bound = torch.rand(1, 2, 32), torch.randn(1, 3, 32), torch.ones(1, 2, 1)
    u[0, 1, 4] = float("nan")
    bound[0, 1] = float("nan")  # σ of a token with a number that is none
    total = torch.zeros(1, 3, 2, 8)
    DigitProduct(torch.randn(32, 8)).add_to(total, x, u, bound)
    assert total.isnan().all(dim=-1)[0].tolist() == [[False, True], [True, True], [False, True]]
    total = torch.zeros(1, 3, 2, 8)
    matrix = torch.randn(32, 8)
    matrix[3, 5] = float("inf")
    DigitProduct(matrix).add_to(total, x, torch.randn(1, 3, 32), torch.ones(1, 2, 1))
    assert not total[..., 5].isfinite().any()
    assert total[..., :5].isfinite().all()


@amx
def test_best_product() -> None:
    side = 1 << 10
    assert isinstance(best_product(torch.randn(side, side)), DigitProduct)
    assert isinstance(best_product(torch.randn(side, side).bfloat16()), DenseProduct)
    assert isinstance(best_product(torch.randn(side, side).double()), DenseProduct)
    assert isinstance(best_product(torch.randn(32, 32)), DenseProduct)
    assert isinstance(best_product(torch.randn(digits.MOST_INPUTS + 1, 8)), DenseProduct)


def test_without_amx_the_product_is_the_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert isinstance(best_product(torch.randn(1 << 10, 1 << 10)), DenseProduct)


@pytest.mark.parametrize(
    "gradient",
    [gelu_gradient("none"), gelu_gradient("tanh"), quick_gelu_gradient],
    ids=["gelu", "gelu_tanh", "quick_gelu"],
)
def test_no_activation_is_steeper_than_the_bound(
    gradient: Callable[[Tensor, Tensor], Tensor],
) -> None:
    a = torch.linspace(-12, 12, 240_001)
    slope = gradient(a, torch.ones(1))
    assert 1.05 < float(slope.abs().max()) <= STEEPEST


def by_digits(case: Case) -> Explainer:
    explainer = legrad.build("legrad", case.model)
    assert isinstance(explainer, ClosedFormLeGrad)
    assert all(isinstance(f.product, DigitProduct) for f in explainer._folded.values())
    return explainer


@amx
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_maps_are_the_reference_engines(quick_gelu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "LEAST_ELEMENTS", 1)
    case = make_case(layers=3, width=64, ls_init_value=0.4, quick_gelu=quick_gelu)
    fast = by_digits(case)
    slow = legrad.build("legrad", case.model, engine="autograd")
    actual, expected = fast(*case.arguments), slow(*case.arguments)
    error = (actual - expected).abs().amax(dim=(1, 2)) / expected.amax(dim=(1, 2))
    assert float(error.max()) <= 1e-5


@amx
def test_maps_of_a_large_tower_are_the_reference_engines() -> None:
    case = make_case(layers=2, width=512, head_width=64, patch_size=2)
    text = F.normalize(torch.randn(3, EMBED_DIM), dim=-1)
    arguments = case.images[:2], text, torch.tensor([0, 1, 1])
    fast = by_digits(case)
    expected = legrad.build("legrad", case.model, engine="autograd")(*arguments)
    error = (fast(*arguments) - expected).abs().amax(dim=(1, 2)) / expected.amax(dim=(1, 2))
    assert float(error.max()) <= 1e-5
