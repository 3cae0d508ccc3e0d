"""Products by digits against float64, and the choice between the ways to multiply."""

import os
import subprocess
import sys
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

import legrad
from legrad import Explainer, digits
from legrad.engines.closed_form import ClosedFormLeGrad
from legrad.products import DenseProduct, DigitProduct, best_product
from legrad.towers.block import STEEPEST, gelu_gradient, quick_gelu_gradient
from tests.legrad.conftest import EMBED_DIM, Case, make_case, relative_error

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
    largest = digits.largest(x)
    out = digits.empty(*x.shape)
    digits.split(x, digits.STEPS / largest, out)
    return out, largest / digits.STEPS


@pytest.mark.parametrize("number", [0, 1, -1, 127, 128, -128, -129, 32767, 32768, -32768, -40000])
def test_digits_of_a_whole_number_of_steps(number: int) -> None:
    out = digits.empty(1, 1)
    digits.split(torch.tensor([[float(number)]]), torch.ones(1, 1), out)
    assert value(out).item() == number


def test_digits_by_hand() -> None:
    out = digits.empty(1, 1)
    digits.split(torch.tensor([[3.0 * 65536 - 2 * 256 + 5]]), torch.ones(1, 1), out)
    assert out[:, 0, 0].tolist() == [64 + 3, 128 - 2, 128 + 5]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_number_does_not_overflow(sign: int) -> None:
    out = digits.empty(1, 1)
    digits.split(torch.tensor([[sign * digits.STEPS]]), torch.ones(1, 1), out)
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
    # A term is off by what its two numbers are rounded to (2^-22 and 2^-23 of the largest of their
    # rows), and by the three pairs of digits that are left out.
    largest = x.abs().amax(dim=1, keepdim=True) * weight.abs().amax(dim=1)
    assert ((actual - expected).abs() <= inputs * largest * 2.0**-21).all()


@amx
def test_the_product_of_digits_is_about_as_exact_as_float32s() -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(100, 3072), torch.randn(768, 3072)
    out, step = digits_of(x)
    expected = x.double() @ weight.double().T

    actual = digits.Factor(weight).multiply(out) * step
    assert error(actual, expected) <= 3 * error(x @ weight.T, expected)


@amx
def test_sums_of_as_many_inputs_as_are_allowed_do_not_overflow() -> None:
    x = torch.full((1, digits.MOST_INPUTS), 1.0)
    weight = -torch.ones(2, digits.MOST_INPUTS)
    out, step = digits_of(x)
    actual = digits.Factor(weight).multiply(out) * step
    torch.testing.assert_close(actual, torch.full((1, 2), -float(digits.MOST_INPUTS)))


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).pow(2).mean().sqrt() / expected.std())


def bound(x: Tensor) -> Tensor:
    return 1.2 * x.abs().amax(dim=-1, keepdim=True)


def both(matrix: Tensor, x: Tensor, u: Tensor, start: Tensor) -> tuple[float, float]:
    """Errors of the ordinary product and of that by digits."""
    expected = start.double() + (x[:, None] * u[:, :, None]).double() @ matrix.double()
    dense, by_digits = start.clone(), start.clone()
    DenseProduct(matrix).add_to(dense, x.clone(), u, bound(x))
    DigitProduct(matrix).add_to(by_digits, x.clone(), u, bound(x))
    return error(dense, expected), error(by_digits, expected)


@amx
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("texts", [1, 4])
def test_both_products_add_the_same(images: int, texts: int) -> None:
    torch.manual_seed(images + 10 * texts)
    x, u = torch.randn(images, 7, 96), torch.randn(images, texts, 96)
    dense, by_digits = both(torch.randn(96, 40), x, u, torch.randn(images, texts, 7, 40))
    assert 0 < dense < 1e-6
    assert by_digits < 3e-6


@amx
def test_a_large_row_of_the_matrix_takes_no_digits_from_the_others() -> None:
    matrix, x, u = torch.randn(512, 40), torch.rand(1, 9, 512), torch.randn(1, 2, 512)
    matrix[7] *= 1e4
    u[..., 7] *= 1e-4
    _, by_digits = both(matrix, x, u, torch.zeros(1, 2, 9, 40))
    assert by_digits < 3e-6


@amx
def test_small_slopes_have_as_many_digits_as_large_ones() -> None:
    matrix, x, u = torch.randn(512, 40), torch.rand(1, 9, 512), torch.randn(1, 2, 512)
    x[:, 3] *= 1e-5
    expected = (x[:, None] * u[:, :, None]).double() @ matrix.double()
    total = torch.zeros(1, 2, 9, 40)
    DigitProduct(matrix).add_to(total, x, u, bound(x))
    assert error(total[:, :, 3], expected[:, :, 3]) < 3e-6


@amx
def test_rows_of_zeros_and_texts_of_zeros() -> None:
    start, x, u = torch.randn(1, 2, 3, 8), torch.randn(1, 3, 32), torch.randn(1, 2, 32)
    x[:, 1], u[:, 1] = 0, 0
    total = start.clone()
    DigitProduct(torch.randn(32, 8)).add_to(total, x, u, bound(x) + 1)
    assert torch.equal(total[:, :, 1], start[:, :, 1])
    assert torch.equal(total[:, 1], start[:, 1])


@amx
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_stays_none(value: float) -> None:
    matrix, x, u = torch.randn(32, 8), torch.rand(1, 2, 32), torch.randn(1, 3, 32)

    def numbers(matrix: Tensor, x: Tensor, u: Tensor) -> list[list[bool]]:
        total = torch.zeros(1, 3, 2, 8)
        DigitProduct(matrix).add_to(total, x.clone(), u, bound(x))
        return total.isfinite().any(dim=-1)[0].tolist()

    assert all(map(all, numbers(matrix, x, u)))
    bad_u, bad_x, bad_matrix = u.clone(), x.clone(), matrix.clone()
    bad_u[0, 1, 4] = bad_x[0, 1, 5] = bad_matrix[3, 5] = value
    assert numbers(matrix, x, bad_u) == [[True, True], [False, False], [True, True]]
    assert numbers(matrix, bad_x, u) == [[True, False]] * 3
    assert not any(map(any, numbers(bad_matrix, x, u)))


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


@amx
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["c_fc.weight", "c_fc.bias", "c_proj.weight"])
def test_a_model_with_what_is_no_number_has_no_map(name: str, value: float) -> None:
    case = make_case(layers=2, width=512, head_width=64, patch_size=2)
    with torch.no_grad():
        case.model.visual.transformer.resblocks[1].mlp.get_parameter(name).view(-1)[7] = value
    arguments = case.images[:1], F.normalize(torch.randn(1, EMBED_DIM)), torch.tensor([0])
    assert not legrad.build("legrad", case.model)(*arguments).isfinite().any()


EVEN = torch.ones(1, 1 << 10)


@amx
def test_best_product() -> None:
    matrix = torch.randn(1 << 10, 1 << 10)
    assert isinstance(best_product(matrix, EVEN), DigitProduct)
    assert isinstance(best_product(matrix.bfloat16(), EVEN), DenseProduct)
    assert isinstance(best_product(matrix.double(), EVEN), DenseProduct)
    assert isinstance(best_product(matrix[:, :32], EVEN), DenseProduct)
    many = digits.MOST_INPUTS + 1
    assert isinstance(best_product(torch.randn(many, 8), torch.ones(1, many)), DenseProduct)


@amx
def test_a_channel_that_stands_out_has_the_ordinary_product() -> None:
    matrix, sizes = torch.randn(1 << 10, 1 << 10), EVEN.clone()
    sizes[0, 3] = 10
    assert isinstance(best_product(matrix, sizes), DigitProduct)
    sizes[0, 3] = 40
    assert isinstance(best_product(matrix, sizes), DenseProduct)
    matrix[3] /= 100
    assert isinstance(best_product(matrix, sizes), DigitProduct)
    assert isinstance(best_product(matrix, EVEN * float("nan")), DenseProduct)


def test_without_amx_the_product_is_the_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert isinstance(best_product(torch.randn(1 << 10, 1 << 10), EVEN), DenseProduct)


@amx
def test_instructions_that_cut_sums_off_are_noticed() -> None:
    code = "from legrad import digits; print(digits.are_exact())"
    for isa, exact in (("AVX512_CORE", "False"), ("AVX512_CORE_AMX", "True")):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == exact


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
    assert relative_error(fast(*case.arguments), slow(*case.arguments)) <= 1e-5


@amx
def test_maps_are_exact_with_a_dead_channel_of_large_weights() -> None:
    case = make_case(layers=2, width=512, head_width=64, patch_size=2)
    with torch.no_grad():
        for block in case.model.visual.transformer.resblocks:
            block.mlp.c_fc.weight[5] = 0
            block.mlp.c_fc.bias[5] = -30  # φ' is 0 there
            block.mlp.c_proj.weight[:, 5] *= 1e4
    arguments = case.images[:1], F.normalize(torch.randn(1, EMBED_DIM)), torch.tensor([0])
    expected = legrad.build("legrad", case.model, engine="autograd")(*arguments)
    actual = legrad.build("legrad", case.model)(*arguments)
    assert relative_error(actual, expected) <= 1e-5


@amx
def test_maps_of_a_large_tower_are_the_reference_engines() -> None:
    case = make_case(layers=2, width=512, head_width=64, patch_size=2)
    text = F.normalize(torch.randn(3, EMBED_DIM), dim=-1)
    arguments = case.images[:2], text, torch.tensor([0, 1, 1])
    fast = by_digits(case)
    expected = legrad.build("legrad", case.model, engine="autograd")(*arguments)
    assert relative_error(fast(*arguments), expected) <= 1e-5
