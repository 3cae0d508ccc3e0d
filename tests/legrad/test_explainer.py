"""What holds for every explainer: the contract of `build`, `encode`, `maps` and `explain`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jaxtyping
import pytest
import torch
from torch import nn

import legrad
from legrad.explainer import select_layers
from tests.legrad.conftest import Case, make_case

Snapshot = Callable[[nn.Module], object]
every_engine = pytest.mark.parametrize("engine", legrad.ENGINES)


@contextmanager
def without_shape_checks() -> Iterator[None]:
    """As outside tests, where only our own messages answer a wrong shape."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@every_engine
def test_shapes_types_and_sign(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    embedding, raw = explainer.explain(*case.arguments)
    assert embedding.shape == (4, 12)
    assert raw.shape == (6, 4, 4)
    assert embedding.dtype == raw.dtype == torch.float32
    assert not embedding.requires_grad
    assert not raw.requires_grad
    assert (raw >= 0).all()
    assert explainer.heat_order is legrad.HeatOrder.UPSAMPLE_NORMALISE


@every_engine
def test_the_two_forms_agree(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    encoding = explainer.encode(case.images)
    embedding, raw = explainer.explain(*case.arguments)
    assert encoding.grid == (4, 4)
    close(encoding.embedding, embedding)
    close(explainer.maps(encoding, case.text, case.image_index), raw)
    close(explainer(*case.arguments), raw)


@every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding_is_the_models_own(engine: str, dtype: torch.dtype) -> None:
    case = make_case(dtype=dtype)
    embedding = legrad.build("legrad", case.model, engine=engine).encode(case.images).embedding
    with torch.no_grad():
        close(embedding, case.model.encode_image(case.images, normalize=True))


@every_engine
def test_prompt_order_permutes_maps(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    order = torch.tensor([3, 5, 0, 4, 2, 1])
    permuted = explainer(case.images, case.text[order], case.image_index[order])
    close(permuted, explainer(*case.arguments)[order])


@every_engine
def test_batch_items_are_independent(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    together = explainer(*case.arguments)
    for query, image in enumerate(case.image_index.tolist()):
        alone = explainer(
            case.images[image : image + 1], case.text[query : query + 1], torch.tensor([0])
        )
        close(alone[0], together[query])


@every_engine
def test_scaling_a_text_does_not_change_its_heatmap(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    heat = legrad.heatmap(explainer(*case.arguments), size=(9, 9))
    scaled = explainer(case.images, 7.5 * case.text, case.image_index)
    torch.testing.assert_close(legrad.heatmap(scaled, size=(9, 9)), heat, rtol=0, atol=1e-5)


@every_engine
def test_two_sizes_on_one_explainer_equal_two_fresh_ones(case: Case, engine: str) -> None:
    """Guards against a resized positional embedding that is written back."""
    shared = legrad.build("legrad", case.model, engine=engine)
    for size in [(16, 16), (24, 8), (16, 16), (8, 24)]:
        images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(3))
        fresh = legrad.build("legrad", make_case().model, engine=engine)
        raw = shared(images, case.text, case.image_index)
        assert raw.shape[1:] == (size[0] // 4, size[1] // 4)
        assert torch.equal(raw, fresh(images, case.text, case.image_index))


@every_engine
def test_maps_of_layers_average(case: Case, engine: str) -> None:
    def maps(layers: object) -> torch.Tensor:
        return legrad.build("legrad", case.model, layers, engine=engine)(*case.arguments)

    each = [maps([index]) for index in range(3)]
    close(maps(None), sum(each) / 3)
    close(maps(2), (each[1] + each[2]) / 2)
    close(maps((2, 0)), (each[0] + each[2]) / 2)


@every_engine
def test_no_pairs_give_no_maps(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    none = torch.zeros(0, dtype=torch.long)
    embedding, raw = explainer.explain(case.images, case.text[:0], none)
    assert raw.shape == (0, 4, 4)
    close(embedding, explainer.encode(case.images).embedding)
    assert legrad.heatmap(raw, size=(5, 6)).shape == (0, 5, 6)


@every_engine
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(engine: str, training: bool, snapshot: Snapshot) -> None:
    case = make_case(size=(8, 24))
    case.model.train(training)
    case.model.visual.conv1.requires_grad_(False)
    before = snapshot(case.model)
    explainer = legrad.build("legrad", case.model, engine=engine)
    explainer(*case.arguments)
    explainer.maps(explainer.encode(case.images), case.text, case.image_index)
    assert snapshot(case.model) == before


@every_engine
def test_the_training_flag_changes_nothing(engine: str) -> None:
    case = make_case(patch_dropout=0.5)
    expected = legrad.build("legrad", case.model, engine=engine)(*case.arguments)
    case.model.train()
    assert torch.equal(legrad.build("legrad", case.model, engine=engine)(*case.arguments), expected)


@every_engine
def test_works_under_inference_mode(case: Case, engine: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=engine)
    expected = explainer(*case.arguments)
    with torch.inference_mode():
        arguments = [argument.clone() for argument in case.arguments]
        assert torch.equal(explainer(*arguments), expected)


def test_a_bare_tower_and_half_precision_images_are_accepted(case: Case) -> None:
    expected = legrad.build("legrad", case.model)(*case.arguments)
    bare = legrad.build("legrad", case.model.visual)
    close(bare(case.images.double(), case.text.double(), case.image_index.int()), expected)


@every_engine
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
    case: Case, engine: str, change: dict[str, torch.Tensor], message: str
) -> None:
    arguments = {"images": case.images, "text": case.text, "image_index": case.image_index}
    explainer = legrad.build("legrad", case.model, engine=engine)
    with without_shape_checks(), pytest.raises(ValueError, match=message):
        explainer.explain(**{**arguments, **change})


@pytest.mark.parametrize(("mine", "other"), [legrad.ENGINES, legrad.ENGINES[::-1]])
def test_an_encoding_of_another_engine_is_refused(case: Case, mine: str, other: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=mine)
    encoding = legrad.build("legrad", case.model, engine=other).encode(case.images)
    with pytest.raises(TypeError, match="encode the images with the same explainer"):
        explainer.maps(encoding, case.text, case.image_index)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [(None, (0, 1, 2, 3)), (1, (3,)), (4, (0, 1, 2, 3)), ([3, 0], (0, 3)), ((2,), (2,))],
)
def test_layers(layers: object, chosen: tuple[int, ...]) -> None:
    assert select_layers(layers, 4) == chosen


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (0, r"k in 1\.\.4"),
        (5, r"k in 1\.\.4"),
        (-2, r"k in 1\.\.4"),
        ([], "at least one"),
        ([1, 1], "listed twice"),
        ([4], r"0\.\.3"),
        ([-1, 2], r"0\.\.3"),
    ],
)
def test_layers_that_do_not_exist(layers: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_layers(layers, 4)


def test_unknown_names_are_answered_with_the_known_ones(case: Case) -> None:
    with pytest.raises(ValueError, match=r"'grad_cam' \(did you mean gradcam\?\); known: legrad, "):
        legrad.build("grad_cam", case.model)
    with pytest.raises(ValueError, match="'fast'; known: closed_form, autograd"):
        legrad.build("legrad", case.model, engine="fast")
    with pytest.raises(ValueError, match="memory_budget=0"):
        legrad.build("legrad", case.model, memory_budget=0)


def test_public_names() -> None:
    assert legrad.METHODS == (
        "legrad", "raw_attention", "rollout", "gradcam", "attention_cam", "chefer_cam",
        "transformer_attribution", "lrp", "partial_lrp", "text_span",
        "maskclip", "sclip", "naclip", "gem",
    )  # fmt: skip
    assert set(legrad.__all__) == {
        "ENGINES", "METHODS", "Encoding", "Explainer", "HeatOrder", "UnsupportedModelError",
        "build", "check_options", "degenerate", "heatmap", "minmax", "options_of",
    }  # fmt: skip
