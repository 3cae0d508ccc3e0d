"""Which models are accepted, how they are read, and what is said about the others."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import VisionTransformer
from torch import nn

import legrad
from legrad.towers.head import ScoreHead
from legrad.towers.open import open_tower
from tests.legrad.conftest import EMBED_DIM, TEXT, VISION, Case, make_case


def clip(**vision: object) -> CLIP:
    return CLIP(EMBED_DIM, {**VISION, **vision}, TEXT)


def pooled(kind: object) -> CLIP:
    return clip(attentional_pool=kind, attn_pooler_heads=4)


def relu_tower() -> VisionTransformer:
    return VisionTransformer(16, 4, 16, 1, 2, 4.0, act_layer=nn.ReLU)


REFUSED = {
    "contrastive pooling": (lambda: pooled("parallel"), "attention pooling"),
    "average pooling": (lambda: clip(pool_type="avg"), "pool_type='avg'"),
    "no pooling": (lambda: clip(pool_type="none"), "pool_type='none'"),
    "custom block": (lambda: clip(qk_norm=True), "block 0 is a CustomResidualAttentionBlock"),
    "resnet": (lambda: clip(layers=(1, 1, 1, 1), width=8, image_size=32), "ModifiedResNet"),
    "timm": (
        lambda: clip(timm_model_name="resnet18", timm_pool="avg", image_size=32),
        "TimmModel with a ResNet",
    ),
    "activation": (relu_tower, "block 0 has activation ReLU"),
    "not a clip": (lambda: nn.Linear(2, 2), "Linear: it is not a transformer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(legrad.UnsupportedModelError, match=message) as refusal:
        legrad.build("legrad", make())
    assert isinstance(refusal.value, ValueError)
    assert "supported: transformers over patch tokens" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_custom_text_clip_is_accepted(case: Case) -> None:
    model = CustomTextCLIP(EMBED_DIM, VISION, TEXT)
    model.visual.load_state_dict(case.model.visual.state_dict())
    maps = [legrad.build("legrad", m)(*case.arguments) for m in (model, case.model)]
    assert torch.equal(*maps)


def test_the_native_positional_embedding_is_used_as_it_is(case: Case) -> None:
    tower, visual = open_tower(case.model), case.model.visual
    with torch.no_grad():
        torch.testing.assert_close(tower.embed(case.images), visual._embeds(case.images))


@torch.no_grad()
def test_a_resized_positional_embedding_keeps_cls_and_orientation() -> None:
    """An embedding that grows along rows only must, resized, still grow along rows only."""
    case = make_case(size=(24, 8), no_ln_pre=True)
    visual = case.model.visual
    visual.conv1.weight.zero_()
    visual.class_embedding.zero_()
    rows = torch.arange(4.0).repeat_interleave(4)
    visual.positional_embedding.copy_(torch.cat([torch.tensor([-9.0]), rows])[:, None])

    tokens = open_tower(case.model).embed(case.images)

    assert (tokens[:, 0] == -9).all()
    patches = tokens[:, 1:].reshape(4, 6, 2, -1)
    assert (patches.diff(dim=1) > 0).all()
    torch.testing.assert_close(patches.diff(dim=2), torch.zeros(4, 6, 1, 24), rtol=0, atol=1e-5)


@pytest.mark.parametrize("proj", [torch.randn(6, 5, dtype=torch.float64), None])
def test_the_score_gradient_is_the_derivative_of_the_score(proj: torch.Tensor | None) -> None:
    norm = nn.LayerNorm(6, eps=1e-3, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    head = ScoreHead(6 if proj is None else 5, norm, proj)
    mean = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    text = F.normalize(torch.randn(4, head.width, dtype=torch.float64), dim=-1)
    (expected,) = torch.autograd.grad(head.score(mean, text).sum(), mean)
    torch.testing.assert_close(head.gradient(mean, text), expected)
