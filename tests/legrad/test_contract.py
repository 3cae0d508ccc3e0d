"""What holds for every method: shapes, batches, ragged pairs, and a model left as it was."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import legrad
from legrad.baselines import BASELINES
from tests.legrad.conftest import Case, make_case, without_shape_checks

Snapshot = Callable[[nn.Module], object]
NAMES = [*legrad.METHODS, "legrad by autograd", "legrad_text_span by autograd"]
every_method = pytest.mark.parametrize("name", NAMES)
NOT_NEGATIVE = {
    "legrad", "legrad by autograd", "legrad_text_span", "legrad_text_span by autograd",
    "raw_attention", "rollout", "gradcam", "chefer_cam",
    "transformer_attribution", "partial_lrp",
}  # fmt: skip
CLASS_AGNOSTIC = {"raw_attention", "rollout"}


def build(name: str, model: nn.Module, **arguments: object) -> legrad.Explainer:
    """`name` is a method, "by autograd" its other engine."""
    method, _, engine = name.partition(" by ")
    return legrad.build(method, model, engine=engine or "closed_form", **arguments)


def close(actual: Tensor, expected: Tensor) -> None:
    atol = 1e-5 * float(expected.abs().max()) if expected.numel() else 0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=atol)


def shape(name: str, queries: int) -> tuple[int, int, int]:
    """Of the maps of images of 16x16 pixels; LRP's have a cell per pixel."""
    return (queries, 16, 16) if name == "lrp" else (queries, 4, 4)


@every_method
def test_shapes_types_and_sign(case: Case, name: str) -> None:
    explainer = build(name, case.model)
    embedding, raw = explainer.explain(*case.arguments)
    assert embedding.shape == (4, 12)
    assert raw.shape == shape(name, 6)
    assert embedding.dtype == raw.dtype == torch.float32
    assert not embedding.requires_grad
    assert not raw.requires_grad
    assert raw.isfinite().all()
    assert (raw.min() >= 0) == (name in NOT_NEGATIVE)
    heat = legrad.heatmap(raw, size=(32, 24), order=explainer.heat_order)
    assert heat.shape == (6, 32, 24)
    assert 0 <= heat.min() <= heat.max() <= 1


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding_is_the_models_own(name: str, dtype: torch.dtype) -> None:
    case = make_case(dtype=dtype)
    encoding = build(name, case.model).encode(case.images)
    assert encoding.grid == (4, 4)
    stock = case.model.encode_image(case.images, normalize=True)
    torch.testing.assert_close(encoding.embedding, stock.detach(), rtol=0, atol=1e-5)


@every_method
def test_the_two_forms_agree(case: Case, name: str) -> None:
    explainer = build(name, case.model)
    encoding = explainer.encode(case.images)
    embedding, raw = explainer.explain(*case.arguments)
    close(encoding.embedding, embedding)
    first, second = (explainer.maps(encoding, case.text, case.image_index) for _ in range(2))
    assert torch.equal(first, second)  # an encoding is not used up
    close(first, raw)
    assert torch.equal(explainer(*case.arguments), raw)


@every_method
def test_pairs_are_independent(name: str) -> None:
    """Each map is what its image and text alone give, in float64 to the last digits."""
    case = make_case(dtype=torch.float64)
    explainer = build(name, case.model)
    raw = explainer(*case.arguments)
    for query, image in enumerate(case.image_index.tolist()):
        alone = explainer(
            case.images[image : image + 1], case.text[query : query + 1], torch.tensor([0])
        )
        torch.testing.assert_close(alone[0], raw[query], rtol=1e-6, atol=1e-9)
    same = bool(torch.allclose(raw[1], raw[4]))  # two texts of image 0
    assert same == (name in CLASS_AGNOSTIC)


@every_method
def test_the_order_of_texts_is_that_of_the_maps(name: str) -> None:
    case = make_case(dtype=torch.float64)
    explainer = build(name, case.model)
    order = torch.tensor([3, 5, 0, 4, 2, 1])
    permuted = explainer(case.images, case.text[order], case.image_index[order])
    close(permuted, explainer(*case.arguments)[order])


@every_method
def test_what_is_not_finite_stays_by_itself(case: Case, name: str) -> None:
    """A text and an image that are NaN have maps without heat; the others' are what they were."""
    explainer = build(name, case.model)
    expected = explainer(*case.arguments)
    images, text = case.images.clone(), case.text.clone()
    images[2, 0, 3, 3] = torch.nan  # of text 3
    text[4] = torch.nan
    raw = explainer(images, text, case.image_index)
    lost = [False, False, False, True, name not in CLASS_AGNOSTIC, False]
    assert legrad.degenerate(raw, order=explainer.heat_order).tolist() == lost
    heat = legrad.heatmap(raw, (8, 8), order=explainer.heat_order)
    assert heat.flatten(1).any(dim=1).tolist() == [not gone for gone in lost]
    close(raw[~torch.tensor(lost)], expected[~torch.tensor(lost)])


@every_method
def test_sizes_do_not_influence_each_other(case: Case, name: str) -> None:
    """Guards against a resized positional embedding that is written back."""
    shared = build(name, case.model)
    for size in [(8, 24), (24, 8), (16, 16)]:
        images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(3))
        raw = shared(images, case.text, case.image_index)
        assert raw.shape[1:] == (size if name == "lrp" else (size[0] // 4, size[1] // 4))
        fresh = build(name, make_case().model)
        assert torch.equal(raw, fresh(images, case.text, case.image_index))


@every_method
def test_no_pairs_give_no_maps(case: Case, name: str) -> None:
    explainer = build(name, case.model)
    none = torch.zeros(0, dtype=torch.long)
    embedding, raw = explainer.explain(case.images, case.text[:0], none)
    assert raw.shape == shape(name, 0)
    close(embedding, explainer.encode(case.images).embedding)
    assert legrad.heatmap(raw, size=(5, 6), order=explainer.heat_order).shape == (0, 5, 6)


@every_method
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(name: str, training: bool, snapshot: Snapshot) -> None:
    """Its training flag changes nothing."""
    case = make_case(size=(8, 24), patch_dropout=0.5)
    expected = build(name, case.model)(*case.arguments)
    case.model.train(training)
    case.model.visual.conv1.requires_grad_(False)
    before = snapshot(case.model)
    explainer = build(name, case.model)
    assert torch.equal(explainer(*case.arguments), expected)
    explainer.maps(explainer.encode(case.images), case.text, case.image_index)
    assert snapshot(case.model) == before


@every_method
def test_works_under_inference_mode(case: Case, name: str) -> None:
    explainer = build(name, case.model)
    expected = explainer(*case.arguments)
    with torch.inference_mode():
        arguments = [argument.clone() for argument in case.arguments]
        assert torch.equal(explainer(*arguments), expected)
        encoding = explainer.encode(arguments[0])
    close(explainer.maps(encoding, *case.arguments[1:]), expected)


@every_method
def test_a_bare_tower_and_tensors_of_other_types_are_accepted(case: Case, name: str) -> None:
    expected = build(name, case.model)(*case.arguments)
    bare = build(name, case.model.visual)
    close(bare(case.images.double(), case.text.double(), case.image_index.int()), expected)
    text = case.text.clone().requires_grad_()
    raw = bare(case.images, text, case.image_index.short())
    assert not raw.requires_grad
    close(raw, expected)
    half = bare(case.images, case.text.half(), case.image_index)
    close(half, bare(case.images, case.text.half().float(), case.image_index))


@every_method
def test_an_encoding_of_another_method_is_refused(case: Case, name: str) -> None:
    other = "gem" if name.startswith("legrad") else "legrad"
    encoding = build(other, case.model).encode(case.images)
    kind = type(encoding).__name__
    with pytest.raises(TypeError, match=f"not {kind}: encode the images with the same explainer"):
        build(name, case.model).maps(encoding, case.text, case.image_index)


@pytest.mark.parametrize("method", BASELINES)
def test_engines_and_budgets_are_accepted(case: Case, method: str) -> None:
    expected = legrad.build(method, case.model)(*case.arguments)
    explainer = legrad.build(method, case.model, engine="autograd", memory_budget=1)
    assert torch.equal(explainer(*case.arguments), expected)


@every_method
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": torch.ones(6, 11)}, "expected .Q, 12."),
        ({"image_index": torch.tensor([0, 0, 0, 0, 0, 4])}, "0..4, but the batch has 4 images"),
        ({"image_index": torch.tensor([0, 0, 0, 0, 0, -1])}, "-1..0"),
        ({"text": torch.ones(12)}, "expected .Q, 12."),
        ({"image_index": torch.tensor([0, 1])}, "6 text embeddings"),
        ({"images": torch.ones(4, 1, 16, 16)}, r"expected \[B, 3, H, W\]"),
        ({"images": torch.ones(3, 16, 16)}, r"expected \[B, 3, H, W\]"),
        ({"images": torch.ones(4, 3, 16, 18)}, "16x18 is not a multiple of the patch size 4x4"),
        ({"images": torch.ones(4, 3, 0, 16)}, "0x16 is not a multiple"),
    ],
)
def test_arguments_that_do_not_fit(
    case: Case, name: str, change: dict[str, Tensor], message: str
) -> None:
    arguments = {"images": case.images, "text": case.text, "image_index": case.image_index}
    explainer = build(name, case.model)
    with without_shape_checks(), pytest.raises(ValueError, match=message):
        explainer.explain(**{**arguments, **change})


@pytest.mark.parametrize("method", legrad.METHODS)
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
        ("naclip", {"std": "5"}, "std='5': give a number"),
        ("naclip", {"std": True}, "std=True: give a number"),
        ("gem", {"iterations": 1.0}, "iterations=1.0: give a whole number"),
        ("gem", {"iterations": True}, "iterations=True: give a whole number"),
        ("rollout", {"row0": 1}, "row0=1: must be of type bool"),
        ("text_span", {"background": [[0.0]]}, "must be of type Tensor"),
        ("legrad_text_span", {"background": torch.ones(3, 11)}, r"expected \[C, 12\]"),
        ("legrad_text_span", {"relu": False}, "no option 'relu'; known: background"),
        ("legrad_text_span", {"layers": 9}, "layers=9: the last k blocks need k in 1..3"),
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


def test_whole_numbers_those_of_numpy_and_parameters_are_good_options(case: Case) -> None:
    for method, option, same in [
        ("naclip", {"std": 5}, {"std": 5.0}),
        ("naclip", {"std": np.float32(5)}, {"std": 5.0}),
        ("gem", {"iterations": np.int64(2)}, {"iterations": 2}),
        ("text_span", {"background": nn.Parameter(case.text[3:])}, {"background": case.text[3:]}),
    ]:
        maps = legrad.build(method, case.model, **option)(*case.arguments)
        expected = legrad.build(method, case.model, **same)(*case.arguments)
        assert torch.equal(maps, expected)
