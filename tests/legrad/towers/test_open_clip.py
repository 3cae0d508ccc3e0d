"""How open_clip's models are read."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CustomTextCLIP
from torch import nn

import legrad
from legrad.towers.head import ScoreHead
from legrad.towers.open import open_tower
from tests.legrad.conftest import EMBED_DIM, TEXT, VISION, Case, make_case


def test_custom_text_clip_is_accepted(case: Case) -> None:
    model = CustomTextCLIP(EMBED_DIM, VISION, TEXT)
    model.visual.load_state_dict(case.model.visual.state_dict())
    maps = [legrad.build("legrad", m)(*case.arguments) for m in (model, case.model)]
    assert torch.equal(*maps)


@torch.no_grad()
def test_the_native_positional_embedding_is_used_as_it_is() -> None:
    case = make_case(dtype=torch.float64)
    seen: list[torch.Tensor] = []
    first = case.model.visual.transformer.resblocks[0]
    first.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    case.model.visual(case.images)
    torch.testing.assert_close(open_tower(case.model).embed(case.images), seen[0])


@torch.no_grad()
def test_a_resized_positional_embedding_keeps_cls_and_orientation() -> None:
    """An embedding that grows along rows only must, resized, still grow along rows only."""
    case = make_case(size=(24, 8), dtype=torch.float64, no_ln_pre=True)
    visual = case.model.visual
    visual.conv1.weight.zero_()
    visual.class_embedding.zero_()
    rows = torch.arange(4.0).repeat_interleave(4)
    visual.positional_embedding.copy_(torch.cat([torch.tensor([-9.0]), rows])[:, None])

    tokens = open_tower(case.model).embed(case.images)

    assert (tokens[:, 0] == -9).all()
    patches = tokens[:, 1:].reshape(4, 6, 2, -1)
    assert (patches.diff(dim=1) > 0).all()
    across = patches.diff(dim=2)
    torch.testing.assert_close(across, torch.zeros_like(across), rtol=0, atol=1e-12)


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
