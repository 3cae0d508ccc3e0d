"""The fast engine against the reference engine, and against itself under other budgets."""

import functools
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from open_clip.model import CLIP, convert_weights_to_lp
from torch import Tensor

import legrad
from legrad.engines.layerwise import LayerStates
from tests.legrad.conftest import EMBED_DIM, TEXT, VISION, Case, make_case, relative_error


def engines(case: Case, layers: object = None) -> tuple[Tensor, Tensor]:
    fast = legrad.build("legrad", case.model, layers)
    slow = legrad.build("legrad", case.model, layers, engine="autograd")
    return fast(*case.arguments), slow(*case.arguments)


TOWERS = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "gelu_tanh": {"act_kwargs": {"approximate": "tanh"}},
    "layer_scale": {"ls_init_value": 0.4},
    "no_ln_pre": {"no_ln_pre": True},
    "narrow_mlp": {"mlp_ratio": 2.5},
    "bigG_mlp": {"width": 26, "head_width": 13, "mlp_ratio": 4.9231},
    "one_head": {"head_width": 24},
    "many_heads": {"width": 32, "head_width": 4, "patch_size": 8},
    "mlp_smaller_than_grid": {"mlp_ratio": 0.5, "patch_size": 2},
    "ln_post_after_pool": {"final_ln_after_pool": True},
    "sin_cos": {"pos_embed_type": "sin_cos_2d"},
    "other_eps": {"norm_kwargs": {"eps": 1e-2}},
    "layer_scale_quick_no_ln_pre": {"ls_init_value": 0.4, "quick_gelu": True, "no_ln_pre": True},
}


WIDE, SQUARE = (8, 24), (16, 16)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize(
    "size",
    [pytest.param(SQUARE, marks=pytest.mark.long, id="square"), pytest.param(WIDE, id="wide")],
)
def test_equals_autograd(tower: str, size: tuple[int, int]) -> None:
    fast, slow = engines(make_case(size=size, dtype=torch.float64, **TOWERS[tower]))
    assert fast.dtype == torch.float64
    assert relative_error(fast, slow) <= 1e-12


@pytest.mark.parametrize("layers", [None, 1, 2, [1], [2, 0]])
def test_equals_autograd_for_any_layers(layers: object) -> None:
    assert relative_error(*engines(make_case(dtype=torch.float64), layers)) <= 1e-12


def test_a_tower_without_projection() -> None:
    case = make_case(dtype=torch.float64, width=EMBED_DIM, head_width=4)
    case.model.visual.proj = None
    assert relative_error(*engines(case)) <= 1e-12


def test_float32_keeps_five_digits(case: Case) -> None:
    assert relative_error(*engines(case)) <= 1e-5


@functools.cache
def each_pair() -> tuple[Case, Tensor]:
    """A model, and its maps of every text in every image by the reference engine."""
    case = make_case(dtype=torch.float64, layers=2)
    index = torch.arange(4).repeat_interleave(6)
    explainer = legrad.build("legrad", case.model, engine="autograd")
    return case, explainer(case.images, case.text.repeat(4, 1), index).view(4, 6, 4, 4)


@settings(max_examples=30)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=9),
    budget=st.sampled_from([1, 120_000, 1 << 30]),
)
def test_ragged_pairs_under_any_budget(pairs: list[tuple[int, int]], budget: int) -> None:
    case, maps = each_pair()
    index, which = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    expected, text = maps[index, which], case.text[which]
    explainer = legrad.build("legrad", case.model, memory_budget=budget)
    actual = explainer(case.images, text, index)
    kept = explainer.maps(explainer.encode(case.images), text, index)
    assert actual.shape == kept.shape == (len(pairs), 4, 4)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(kept, expected, rtol=1e-9, atol=1e-14)


def test_encode_keeps_preactivations_as_far_as_the_budget_allows(case: Case) -> None:
    def kept(budget: int) -> int:
        encoding = legrad.build("legrad", case.model, memory_budget=budget).encode(case.images)
        assert isinstance(encoding, LayerStates)
        return sum(state.preactivations is not None for state in encoding.states)

    batch_tokens, width, hidden = 4 * 17, 24, 96
    required = 3 * batch_tokens * 2 * width * 4
    each = batch_tokens * hidden * 4
    assert [kept(required + n * each) for n in (0, 1, 2, 3, 9)] == [0, 1, 2, 3, 3]
    assert kept(required + each - 1) == 0
    assert kept(1) == 0


def test_calls_repeat_bit_for_bit(case: Case) -> None:
    explainer = legrad.build("legrad", case.model)
    assert torch.equal(explainer(*case.arguments), explainer(*case.arguments))


def test_values_do_not_hold_on_to_queries_and_keys(case: Case) -> None:
    encoding = legrad.build("legrad", case.model).encode(case.images)
    assert isinstance(encoding, LayerStates)
    state = encoding.states[0]
    assert state.values.untyped_storage().nbytes() == state.values.nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pure", [False, True], ids=["mixed", "pure"])
def test_half_precision_masks_agree(dtype: torch.dtype, pure: bool) -> None:
    case = make_case(size=(32, 32), ls_init_value=0.4)
    expected = legrad.heatmap(legrad.build("legrad", case.model)(*case.arguments), size=(64, 64))
    model = CLIP(
        EMBED_DIM, {**VISION, "ls_init_value": 0.4}, TEXT, cast_dtype=None if pure else dtype
    )
    model.load_state_dict(case.model.state_dict())
    if pure:
        model.to(dtype)
    else:
        convert_weights_to_lp(model, dtype)  # LayerNorm and LayerScale stay in float32

    embedding, raw = legrad.build("legrad", model).explain(*case.arguments)

    assert raw.dtype == embedding.dtype == torch.float32
    masks, truth = legrad.heatmap(raw, size=(64, 64)) > 0.5, expected > 0.5
    iou = (masks & truth).sum() / (masks | truth).sum()
    assert iou >= 0.95


def test_float16_survives_a_vanishing_gradient(make_case: Callable[..., Case]) -> None:
    """Gradients of 1e-9 would be zero in float16 if they were not scaled to unit norm."""
    case = make_case()
    explainer = legrad.build("legrad", case.model.to(torch.float16))
    raw = explainer(*case.arguments)
    tiny = explainer(case.images, case.text * 1e-9, case.image_index)
    torch.testing.assert_close(tiny * 1e9, raw, rtol=1e-2, atol=1e-2 * float(raw.max()))


def test_a_text_of_zeros_gives_a_map_of_zeros(case: Case) -> None:
    explainer = legrad.build("legrad", case.model)
    assert not explainer(case.images, torch.zeros_like(case.text), case.image_index).any()
