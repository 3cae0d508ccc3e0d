"""How SigLIP, CoCa, classifiers, registers and EVA are read."""

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP

import legrad
from legrad.towers.open import open_tower
from tests.legrad.towers.examples import (
    TOWERS,
    coca,
    example,
    own_embedding,
    randomised,
    siglip,
    vit,
)


@pytest.mark.parametrize("name", TOWERS)
def test_the_embedding_is_the_models_own(name: str) -> None:
    case = example(name)
    expected = own_embedding(case.model, case.images)
    for engine in legrad.ENGINES:
        encoding = legrad.build("legrad", case.model, engine=engine).encode(case.images)
        torch.testing.assert_close(encoding.embedding, expected, rtol=1e-9, atol=1e-11)


def test_scores_of_a_classifier_are_logits_without_bias() -> None:
    case = example("classifier")
    rows, bias = case.model.head.weight.detach(), case.model.head.bias
    embedding = legrad.build("legrad", case.model).encode(case.images).embedding
    expected = (case.model(case.images) - bias).detach()
    torch.testing.assert_close(embedding @ rows.T, expected)


def test_coca_inside_its_model_is_accepted() -> None:
    model = randomised(coca())
    assert isinstance(model, CLIP | CustomTextCLIP)
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    embedding = legrad.build("legrad", model).encode(images).embedding
    expected = model.encode_image(images, normalize=True).detach()
    torch.testing.assert_close(embedding, expected)


def test_siglip_normalises_before_upsampling() -> None:
    before, after = legrad.HeatOrder.NORMALISE_UPSAMPLE, legrad.HeatOrder.UPSAMPLE_NORMALISE
    for engine in legrad.ENGINES:
        for model, order in ((siglip(), before), (coca(), after), (vit(), after)):
            assert legrad.build("legrad", model, engine=engine).heat_order is order


def test_prefix_tokens_never_become_cells() -> None:
    """A register that shouts louder than every patch changes no cell's place."""
    case = example("registers")
    raw = legrad.build("legrad", case.model)(*case.arguments)
    explainer = legrad.build("legrad", case.model, engine="autograd")
    assert raw.shape == explainer(*case.arguments).shape == (5, 4, 4)
    assert open_tower(case.model).prefix_count == 4
