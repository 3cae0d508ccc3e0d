"""What follows from the formulas without computing them."""

import pytest
import torch
from torch import Tensor

import legrad
from legrad import HeatOrder
from legrad.baselines.rules import Rules, copies, matmul
from tests.legrad.conftest import Case, make_case


@pytest.fixture
def uniform(case: Case) -> Case:
    """Without queries every token attends to all tokens alike."""
    with torch.no_grad():
        for block in case.model.visual.transformer.resblocks:
            block.attn.in_proj_weight[:24] = 0
            block.attn.in_proj_bias[:24] = 0
    return case


@pytest.mark.parametrize("method", ["rollout", "raw_attention"])
def test_uniform_attention_gives_uniform_maps(uniform: Case, method: str) -> None:
    raw = legrad.build(method, uniform.model)(*uniform.arguments)
    torch.testing.assert_close(raw, raw[:1, :1, :1].expand_as(raw))


@pytest.mark.parametrize(
    "method", ["gradcam", "attention_cam", "chefer_cam", "transformer_attribution"]
)
def test_without_a_gradient_nothing_is_found(case: Case, method: str) -> None:
    raw = legrad.build(method, case.model)(
        case.images, torch.zeros_like(case.text), case.image_index
    )
    assert not raw.any()


@pytest.mark.parametrize(
    "method",
    [
        *("legrad", "legrad_text_span", "gradcam", "attention_cam"),
        *("maskclip", "sclip", "naclip", "gem", "text_span"),
    ],
)
def test_a_longer_text_is_the_same_map(method: str) -> None:
    case = make_case(dtype=torch.float64)
    explainer = legrad.build(method, case.model)
    raw = explainer(*case.arguments)
    longer = explainer(case.images, 3 * case.text, case.image_index)
    torch.testing.assert_close(longer, 3 * raw, rtol=1e-9, atol=1e-12 * float(raw.abs().max()))


def test_gradcam_without_cls_is_zero_at_the_last_block_alone(case: Case) -> None:
    with_last = legrad.build("gradcam", case.model, layers=2, with_cls=False)
    without = legrad.build("gradcam", case.model, layers=[1], with_cls=False)
    assert torch.equal(with_last(*case.arguments), without(*case.arguments))


def test_gem_of_another_depth_or_without_iterations_is_another_map(case: Case) -> None:
    raw = legrad.build("gem", case.model)(*case.arguments)
    for options in ({"layers": 1}, {"iterations": 0}):
        other = legrad.build("gem", case.model, **options)(*case.arguments)
        assert (other - raw).abs().max() > 1e-4


def test_naclip_with_a_wide_neighbourhood_forgets_places(case: Case) -> None:
    """With σ → ∞ every pair of patches gets the same bonus, with σ → 0 none but a patch itself."""
    far, near = (
        legrad.build("naclip", case.model, std=std)(*case.arguments) for std in (1e6, 1e-3)
    )
    assert (far - near).abs().max() > 1e-4


@pytest.mark.parametrize("form", ["paper", "te"])
def test_heat_of_attention_cam_reaches_1(form: str) -> None:
    """TE normalises on the patch grid, and again after it upsamples: once, afterwards, is both."""
    case, size = make_case(size=(32, 32)), (32, 32)
    explainer = legrad.build("attention_cam", case.model, form=form)
    raw = explainer(*case.arguments)
    raw = raw[~legrad.degenerate(raw)]
    assert len(raw)
    heat = legrad.heatmap(raw, size, order=explainer.heat_order)
    assert (heat.amax(dim=(1, 2)) == 1).all()
    on_grid = legrad.heatmap(raw, size, order=HeatOrder.NORMALISE_UPSAMPLE)
    assert on_grid.amax(dim=(1, 2)).min() < 0.95
    torch.testing.assert_close(heat, legrad.minmax(on_grid), rtol=0, atol=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_linear_and_add_conserve_relevance(own: bool) -> None:
    torch.manual_seed(0)
    rules = Rules(own)
    x, weight = torch.rand(5, 7, dtype=torch.float64), torch.rand(4, 7, dtype=torch.float64)
    r = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(rules.linear(x, weight, r).sum(), r.sum())

    a, b = torch.rand(2, 5, 4, dtype=torch.float64)
    of_a, of_b = rules.add(a, b, r.abs())
    torch.testing.assert_close((of_a + of_b).sum(), r.abs().sum())


def test_the_signs_share_one_denominator_or_have_their_own() -> None:
    """x = [1, −1], W = [1, −3]: contributions 1 and 3."""
    x, weight, r = torch.tensor([[1.0, -1]]), torch.tensor([[1.0, -3]]), torch.ones(1, 1)
    torch.testing.assert_close(Rules(True).linear(x, weight, r), torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(Rules(False).linear(x, weight, r), torch.tensor([[1.0, 1.0]]))


def test_the_own_add_gives_branches_their_share_of_the_total() -> None:
    """Branches with relevance 3 and −1 of a total of 2: |3| and |−1| of 4 parts."""
    a, b = torch.tensor([[3.0, 0]]), torch.tensor([[0, 1.0]])
    of_a, of_b = Rules(True).add(a, b, torch.tensor([[3.0, -1]]))
    torch.testing.assert_close(of_a, torch.tensor([[1.5, 0]]))
    torch.testing.assert_close(of_b, torch.tensor([[0, 0.5]]))


def test_matmul_halves_the_total() -> None:
    x, y = torch.rand(2, 3, 4, dtype=torch.float64), torch.rand(2, 4, 5, dtype=torch.float64)
    r = torch.rand(2, 3, 5, dtype=torch.float64)
    for part in matmul(x, y, r):
        torch.testing.assert_close(part.sum(), r.sum() / 2)


def test_copies_pass_relevance_on_except_at_zero() -> None:
    x, r = torch.tensor([2.0, 0, -1]), torch.tensor([3.0, 3, 3])
    torch.testing.assert_close(copies(x, r), torch.tensor([3.0, 0, 3]))


def signed(case: Case, **options: object) -> Tensor:
    return legrad.build("legrad", case.model, engine="autograd", **options)(*case.arguments)


def test_signed_legrad_is_the_same_by_both_engines() -> None:
    case = make_case(dtype=torch.float64)
    fast = legrad.build("legrad", case.model, relu=False)(*case.arguments)
    assert fast.min() < 0
    torch.testing.assert_close(fast, signed(case, relu=False), rtol=1e-8, atol=1e-12)


def test_the_last_layers_own_score_is_the_last_score() -> None:
    """The options differ in the layers before the last one only."""
    case = make_case(dtype=torch.float64)
    torch.testing.assert_close(
        signed(case, layers=1, score_layer="last"), signed(case, layers=1, score_layer="own")
    )
    other = signed(case, score_layer="last")
    assert (other - signed(case)).abs().max() > 1e-3 * other.max()


def test_score_of_the_last_layer_is_differentiated_through_all_later_blocks() -> None:
    """With the attention of a layer as a leaf, the gradient is that of the whole rest."""
    case = make_case(dtype=torch.float64, batch=3)
    raw = signed(case, layers=[0], score_layer="last", pool="cls")
    # CLS's score of the last block is the model's own: the gradient that CheferCAM uses.
    from legrad.baselines.recording import record, score_gradients
    from legrad.towers.open import open_tower

    recording = record(open_tower(case.model), case.images, 0, graph=True)
    for query, image in enumerate(case.image_index.tolist()):
        (gradient,) = score_gradients(
            recording,
            [recording.steps[0].weights],
            case.text[query : query + 1],
            torch.tensor([image]),
        )
        expected = gradient[0].clamp(min=0).mean(dim=(0, 1))[1:].view(4, 4)
        torch.testing.assert_close(raw[query], expected, rtol=1e-8, atol=1e-14)


def test_correction_changes_hot_cells_only(case: Case) -> None:
    empty = case.text[0]
    plain = legrad.build("legrad", case.model)
    raw = plain(*case.arguments)
    pairs = case.image_index
    hot = legrad.minmax(plain(case.images, empty.expand(6, -1), pairs)) > 0.8
    corrected = legrad.build("legrad", case.model, empty_text=empty)
    torch.testing.assert_close(corrected(*case.arguments), raw.masked_fill(hot, 0))
    maps = corrected.maps(corrected.encode(case.images), case.text, pairs)
    torch.testing.assert_close(maps, raw.masked_fill(hot, 0))
    assert hot.any()

    off = legrad.build("legrad", case.model, empty_text=empty, empty_threshold=1.0)
    torch.testing.assert_close(off(*case.arguments), raw)


def test_correction_takes_cells_to_the_bottom_of_a_map_of_any_sign(case: Case) -> None:
    empty = case.text[0]
    plain = legrad.build("legrad", case.model, relu=False, engine="autograd")
    raw = plain(*case.arguments)
    hot = legrad.minmax(plain(case.images, empty.expand(6, -1), case.image_index)) > 0.8
    corrected = legrad.build("legrad", case.model, relu=False, engine="autograd", empty_text=empty)(
        *case.arguments
    )
    bottom = raw.amin((1, 2), keepdim=True).expand_as(raw)
    assert (raw.amin((1, 2)) < 0).any() and hot.any()
    torch.testing.assert_close(corrected[hot], bottom[hot].clamp(max=0))
    torch.testing.assert_close(corrected[~hot], raw[~hot])


def test_correction_of_maps_that_are_clipped_later_takes_cells_to_0(case: Case) -> None:
    """Of the dummy text's map only what is above 0 is found, too."""
    empty = case.text[0]
    plain = legrad.build("text_span", case.model)
    raw = plain(*case.arguments)
    dummy = plain(case.images, empty.expand(6, -1), case.image_index)
    hot = legrad.minmax(dummy.clamp(min=0)) > 0.8
    corrected = legrad.build("text_span", case.model, empty_text=empty)
    assert corrected.heat_order is plain.heat_order
    assert raw.min() < 0 and hot.any()
    torch.testing.assert_close(corrected(*case.arguments), raw.masked_fill(hot, 0))


def test_correction_is_refused_where_maps_do_not_depend_on_texts(case: Case) -> None:
    for method in ("raw_attention", "rollout"):
        with pytest.raises(ValueError, match="the same map for every text"):
            legrad.build(method, case.model, empty_text=case.text[0])


def test_correction_of_no_pairs(case: Case) -> None:
    corrected = legrad.build("gradcam", case.model, empty_text=case.text[0])
    assert corrected(case.images, case.text[:0], case.image_index[:0]).shape == (0, 4, 4)
