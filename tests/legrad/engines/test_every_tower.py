"""Both engines on every kind of tower, its pooler against finite differences, and its variants."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import legrad
from legrad.towers.open import open_tower
from tests.legrad.towers.examples import TOWERS, example, randomised, siglip, vit


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize(
    ("size", "relu"),
    [
        ((8, 12), True),
        ((16, 16), False),
        pytest.param((8, 12), False, marks=pytest.mark.long),
        pytest.param((16, 16), True, marks=pytest.mark.long),
    ],
)
def test_the_closed_form_equals_autograd(name: str, size: tuple[int, int], relu: bool) -> None:
    case = example(name, size)
    fast = legrad.build("legrad", case.model, relu=relu)
    slow = legrad.build("legrad", case.model, relu=relu, engine="autograd")
    raw = fast(*case.arguments)
    assert raw.shape == (5, size[0] // 4, size[1] // 4)
    expected = slow(*case.arguments)
    assert expected.abs().amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(raw, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))
    kept = fast.maps(fast.encode(case.images), case.text, case.image_index)
    torch.testing.assert_close(kept, raw)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("siglip", {"apply_trunk_norm": True}),
        ("pe", {"apply_trunk_norm": True}),
        ("coca", {"coca": "official"}),
    ],
)
def test_variants_of_poolers(name: str, options: dict[str, object]) -> None:
    case = example(name)
    fast = legrad.build("legrad", case.model, **options)(*case.arguments)
    slow = legrad.build("legrad", case.model, engine="autograd", **options)(*case.arguments)
    torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-12)
    plain = legrad.build("legrad", case.model)(*case.arguments)
    assert (legrad.minmax(fast) - legrad.minmax(plain)).abs().max() > 0.01


@pytest.mark.parametrize("name", ["siglip", "coca", "pe"])
def test_the_pooler_is_differentiated_as_finite_differences_say(name: str) -> None:
    case = example(name)
    tower = open_tower(case.model)
    options = {} if name == "coca" else {"apply_trunk_norm": True}
    raw = legrad.build("legrad", case.model, layers=1, **options)
    pooler, image = tower.pooler, case.images[:1]
    seen: list[Tensor] = []
    blocks = case.model.transformer.resblocks if name == "coca" else case.model.trunk.blocks
    hook = blocks[-1].register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    embedding = F.normalize(case.model(image), dim=1)
    hook.remove()
    z = seen[0]
    weights = pooler.weights(z).detach()

    def score(a: Tensor) -> Tensor:
        return (tower.read(pooler.finish(a @ pooler.values(z))) @ case.text[0]).sum()

    torch.testing.assert_close(score(weights), (embedding @ case.text[0]).sum())
    gradient, step = torch.zeros_like(weights), 1e-5
    for position in range(weights.numel()):
        delta = torch.zeros_like(weights)
        delta.view(-1)[position] = step
        gradient.view(-1)[position] = (score(weights + delta) - score(weights - delta)) / (2 * step)
    expected = gradient.clamp(min=0).mean(dim=(0, 1, 2))[tower.prefix_count :].view(1, 4, 4)
    actual = raw(image, case.text[:1], torch.tensor([0]))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("option", [{"pool": "cls"}, {"score_layer": "last"}])
def test_ablations_that_a_pooler_has_no_meaning_for(option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="read through an attention pooler"):
        legrad.build("legrad", randomised(siglip()), engine="autograd", **option)


def test_there_is_no_score_of_cls_without_cls() -> None:
    model = vit(global_pool="avg", class_token=False)
    with pytest.raises(ValueError, match="this tower has no CLS token"):
        legrad.build("legrad", model, engine="autograd", pool="cls")
