"""The reference engine against arithmetic that uses none of our code."""

import math
from collections.abc import Callable

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

import legrad
from tests.legrad.conftest import make_case


def block_inputs(visual: VisionTransformer, image: Tensor) -> list[Tensor]:
    """The stream [N, D] that enters each block of the stock model."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0]))
        for block in visual.transformer.resblocks
    ]
    visual(image)
    for hook in hooks:
        hook.remove()
    return seen


def heads(block: nn.Module, x: Tensor) -> Tensor:
    """Queries, keys and values [3, h, N, d_h] of one image."""
    attention = block.attn
    joint = block.ln_1(x) @ attention.in_proj_weight.T + attention.in_proj_bias
    return joint.reshape(len(x), 3, attention.num_heads, -1).permute(1, 2, 0, 3)


def attention_weights(block: nn.Module, x: Tensor) -> Tensor:
    query, key, _ = heads(block, x)
    return torch.softmax(query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]), dim=-1)


def block_output(block: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    mixed = (weights @ heads(block, x)[2]).transpose(0, 1).reshape(x.shape)
    x = x + block.ls_1(block.attn.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def layer_score(visual: VisionTransformer, output: Tensor, text: Tensor) -> Tensor:
    u = visual.ln_post(output.mean(dim=0)) @ visual.proj
    return text @ u / u.norm()


def finite_differences(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    step, gradient = 1e-5, torch.zeros_like(at)
    for position in range(at.numel()):
        delta = torch.zeros_like(at)
        delta.view(-1)[position] = step
        gradient.view(-1)[position] = (function(at + delta) - function(at - delta)) / (2 * step)
    return gradient


@pytest.mark.parametrize("engine", legrad.ENGINES)
@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.no_grad()
def test_equals_finite_differences(engine: str, quick_gelu: bool) -> None:
    case = make_case(
        size=(8, 12), batch=3, dtype=torch.float64, quick_gelu=quick_gelu, ls_init_value=0.4,
        layers=2, width=16, image_size=8,
    )  # fmt: skip
    visual, image, text = case.model.visual, case.images[:1], case.text[:1]
    # The stock model takes its native size only: give it this grid's embedding for this test.
    grid_embedding = 0.2 * torch.randn(1 + 2 * 3, 16, dtype=torch.float64)
    visual.positional_embedding = nn.Parameter(grid_embedding)
    visual.grid_size = (2, 3)

    for index, x in enumerate(block_inputs(visual, image)):
        block = visual.transformer.resblocks[index]
        weights = attention_weights(block, x)
        torch.testing.assert_close(block_output(block, x, weights), block(x[None])[0])

        gradient = finite_differences(
            lambda a, block=block, x=x: layer_score(visual, block_output(block, x, a), text[0]),
            weights,
        )
        expected = gradient.clamp(min=0).mean(dim=(0, 1))[1:].reshape(2, 3)

        explainer = legrad.build("legrad", case.model, layers=[index], engine=engine)
        actual = explainer(image, text, torch.tensor([0]))[0]
        assert (actual - expected).abs().max() <= 1e-7 * expected.max()


@pytest.mark.parametrize("engine", legrad.ENGINES)
def test_equals_an_example_worked_by_hand(engine: str) -> None:
    """One block, one head, the CLS token and one patch, four channels.

    The tokens [1, 1, −1, −1] and [1, −1, 1, −1] are their own LayerNorm. With W_q = W_k = 0,
    W_v = W_o = 1 and a silent MLP, A is 1/2 everywhere, V_j = x_j and
    z̄ = [2, 0, 0, −2], whose LayerNorm is u = [√2, 0, 0, −√2], of length 2 (σ = √2).
    For t = [1, −1, 1, −1] / 2:  s = √2 / 2,  ∂s/∂u = (t − s u/2) / 2 = [0, −1, 1, 0] / 4,
    which LayerNorm only divides by σ, and the mean by 2: G_i = [0, −1, 1, 0] / (8√2).
    ⟨G_i, V_cls⟩ = −2 / (8√2) is cut off; ⟨G_i, V_patch⟩ = 2 / (8√2), for both queries i, so that
    the mean over queries is 1 / (4√2).
    """
    visual = VisionTransformer(
        image_size=1, patch_size=1, width=4, layers=1, heads=1, mlp_ratio=1, output_dim=4,
        no_ln_pre=True,
    )  # fmt: skip
    patch = torch.tensor([1.0, -1, 1, -1])
    block = visual.transformer.resblocks[0]
    with torch.no_grad():
        visual.conv1.weight.zero_()
        visual.class_embedding.zero_()
        visual.positional_embedding.copy_(torch.stack([torch.tensor([1.0, 1, -1, -1]), patch]))
        visual.proj.copy_(torch.eye(4))
        block.attn.in_proj_weight.copy_(torch.cat([torch.zeros(8, 4), torch.eye(4)]))
        block.attn.in_proj_bias.zero_()
        block.attn.out_proj.weight.copy_(torch.eye(4))
        block.attn.out_proj.bias.zero_()
        block.mlp.c_proj.weight.zero_()
        block.mlp.c_proj.bias.zero_()

    explainer = legrad.build("legrad", visual, engine=engine)
    raw = explainer(torch.zeros(1, 3, 1, 1), patch[None] / 2, torch.tensor([0]))

    assert float(raw) == pytest.approx(1 / (4 * math.sqrt(2)), rel=1e-4)  # LayerNorm's eps
