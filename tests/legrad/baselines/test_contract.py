"""What holds for every method: shapes, batches, ragged pairs, and a model left as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import legrad
from legrad.baselines import BASELINES
from tests.legrad.conftest import Case, make_case

Snapshot = Callable[[nn.Module], object]
every_method = pytest.mark.parametrize("method", BASELINES)
NOT_NEGATIVE = {
    "raw_attention", "rollout", "gradcam", "chefer_cam", "transformer_attribution",
    "partial_lrp",
}  # fmt: skip
CLASS_AGNOSTIC = {"raw_attention", "rollout"}


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@every_method
def test_shapes_types_and_sign(case: Case, method: str) -> None:
    explainer = legrad.build(method, case.model)
    embedding, raw = explainer.explain(*case.arguments)
    assert raw.shape == ((6, 16, 16) if method == "lrp" else (6, 4, 4))
    assert embedding.dtype == raw.dtype == torch.float32
    assert not embedding.requires_grad
    assert not raw.requires_grad
    assert raw.isfinite().all()
    assert (raw.min() >= 0) == (method in NOT_NEGATIVE)
    heat = legrad.heatmap(raw, size=(32, 24), order=explainer.heat_order)
    assert heat.shape == (6, 32, 24)
    assert 0 <= heat.min() <= heat.max() <= 1


@every_method
def test_embedding_is_the_models_own(case: Case, method: str) -> None:
    encoding = legrad.build(method, case.model).encode(case.images)
    stock = case.model.encode_image(case.images, normalize=True)
    torch.testing.assert_close(encoding.embedding, stock.detach(), rtol=0, atol=1e-5)


@every_method
def test_the_two_forms_agree(case: Case, method: str) -> None:
    explainer = legrad.build(method, case.model)
    encoding = explainer.encode(case.images)
    for _ in range(2):  # an encoding is not used up
        raw = explainer.maps(encoding, case.text, case.image_index)
        assert torch.equal(raw, explainer(*case.arguments))


@every_method
def test_pairs_are_independent(method: str) -> None:
    """Each map is what its image and text alone give, in float64 to the last digits."""
    case = make_case(dtype=torch.float64)
    explainer = legrad.build(method, case.model)
    raw = explainer(*case.arguments)
    for query, image in enumerate(case.image_index.tolist()):
        alone = explainer(
            case.images[image : image + 1], case.text[query : query + 1], torch.tensor([0])
        )
        torch.testing.assert_close(alone[0], raw[query], rtol=1e-6, atol=1e-9)
    same = bool(torch.allclose(raw[1], raw[4]))  # two texts of image 0
    assert same == (method in CLASS_AGNOSTIC)


@every_method
def test_sizes_do_not_influence_each_other(case: Case, method: str) -> None:
    shared = legrad.build(method, case.model)
    for size in [(16, 16), (8, 24), (16, 16)]:
        images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(3))
        raw = shared(images, case.text, case.image_index)
        fresh = legrad.build(method, make_case().model)
        assert torch.equal(raw, fresh(images, case.text, case.image_index))


@every_method
def test_no_pairs_give_no_maps(case: Case, method: str) -> None:
    raw = legrad.build(method, case.model)(
        case.images, case.text[:0], torch.zeros(0, dtype=torch.long)
    )
    assert raw.shape == ((0, 16, 16) if method == "lrp" else (0, 4, 4))


@every_method
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(method: str, training: bool, snapshot: Snapshot) -> None:
    case = make_case(size=(8, 24), patch_dropout=0.5)
    expected = legrad.build(method, case.model)(*case.arguments)
    case.model.train(training)
    case.model.visual.conv1.requires_grad_(False)
    before = snapshot(case.model)
    assert torch.equal(legrad.build(method, case.model)(*case.arguments), expected)
    assert snapshot(case.model) == before


@every_method
def test_works_under_inference_mode(case: Case, method: str) -> None:
    explainer = legrad.build(method, case.model)
    expected = explainer(*case.arguments)
    with torch.inference_mode():
        arguments = [argument.clone() for argument in case.arguments]
        assert torch.equal(explainer(*arguments), expected)
        encoding = explainer.encode(arguments[0])
    assert torch.equal(explainer.maps(encoding, *case.arguments[1:]), expected)


@every_method
def test_an_encoding_of_another_method_is_refused(case: Case, method: str) -> None:
    encoding = legrad.build("legrad", case.model).encode(case.images)
    with pytest.raises(TypeError, match="not LayerStates: encode the images with the same"):
        legrad.build(method, case.model).maps(encoding, case.text, case.image_index)


@every_method
def test_engines_and_budgets_are_accepted(case: Case, method: str) -> None:
    expected = legrad.build(method, case.model)(*case.arguments)
    explainer = legrad.build(method, case.model, engine="autograd", memory_budget=1)
    assert torch.equal(explainer(*case.arguments), expected)


@pytest.mark.parametrize("method", ["legrad", *BASELINES])
def test_unknown_options_are_answered_with_the_known_ones(case: Case, method: str) -> None:
    known = ", ".join(legrad.options_of(method)) or "none"
    with pytest.raises(ValueError, match=f"{method} has no option 'sharpen'; known: {known}"):
        legrad.build(method, case.model, sharpen=True)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("attention_cam", {"form": "cam"}, "form='cam'; known: paper, te"),
        ("naclip", {"std": 0.0}, "std=0.0: must be positive"),
        ("gem", {"layers": [0, 1]}, r"layers=\[0, 1\]: GEM's path takes the last k"),
        ("gem", {"iterations": -1}, "iterations=-1"),
        ("gradcam", {"layers": 1, "with_cls": False}, "the map would be zero"),
        ("lrp", {"layers": 2}, "layers=2: lrp leaves no choice"),
        ("sclip", {"layers": [1]}, "leaves no choice"),
        ("text_span", {"background": torch.ones(3, 11)}, r"expected \[C, 12\]"),
        ("legrad", {"pool": "max"}, "pool='max'; known: mean, cls"),
        ("legrad", {"pool": "cls"}, 'use engine="autograd"'),
        ("legrad", {"score_layer": "last"}, 'use engine="autograd"'),
        ("naclip", {"std": "5"}, "std='5': must be of type float"),
        ("naclip", {"std": True}, "std=True: must be of type float"),
        ("gem", {"iterations": 1.0}, "iterations=1.0: must be of type int"),
        ("gem", {"iterations": True}, "iterations=True: must be of type int"),
        ("rollout", {"row0": 1}, "row0=1: must be of type bool"),
        ("text_span", {"background": [[0.0]]}, "must be of type Tensor"),
        ("gem", {"iteration": 1}, r"no option 'iteration' \(did you mean iterations\?\)"),
        ("lrp", {"layer": 1}, r"no option 'layer' \(layers is a setting beside the options\)"),
        ("legrad", {"empty_text": torch.ones(11)}, r"expected \[12\]"),
        ("legrad", {"empty_text": torch.ones(12), "empty_threshold": 1.5}, "0..1"),
    ],
)
def test_options_that_cannot_be(
    case: Case, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        legrad.build(method, case.model, **options)


def test_whole_numbers_and_parameters_are_good_options(case: Case) -> None:
    for method, option, same in [
        ("naclip", {"std": 5}, {"std": 5.0}),
        ("text_span", {"background": nn.Parameter(case.text[3:])}, {"background": case.text[3:]}),
    ]:
        maps = legrad.build(method, case.model, **option)(*case.arguments)
        expected = legrad.build(method, case.model, **same)(*case.arguments)
        assert torch.equal(maps, expected)
