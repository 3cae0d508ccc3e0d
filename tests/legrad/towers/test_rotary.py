"""Rotary positions: of other grids, in other types, in training, and through several blocks."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import nn

import legrad
from legrad.towers.attention import attention, block_output
from legrad.towers.open import open_tower
from tests.legrad.towers.examples import ROTARY, example, own_embedding, randomised, rotary


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("size", [(24, 24), (8, 12)])
def test_rotary_positions_of_other_grids_are_those_of_a_resized_model(
    name: str, size: tuple[int, int]
) -> None:
    case = example(name, size)
    resized = copy.deepcopy(case.model)
    (resized.trunk if isinstance(resized, TimmModel) else resized).set_input_size(size)
    encoding = legrad.build("legrad", case.model).encode(case.images)
    expected = own_embedding(resized, case.images)
    # timm resizes positions in float32.
    torch.testing.assert_close(encoding.embedding, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotary_positions_in_other_types(name: str, dtype: torch.dtype) -> None:
    case = example(name)
    model, images = case.model.to(dtype), case.images.to(dtype)
    embedding, raw = legrad.build("legrad", model).explain(images, case.text, case.image_index)
    assert raw.isfinite().all()
    assert raw.any()
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2  # of three blocks in that type
    expected = own_embedding(model, images).float()
    close = {"rtol": tolerance, "atol": tolerance * float(expected.abs().max())}
    torch.testing.assert_close(embedding, expected, **close)


@pytest.mark.parametrize("rope_type", ["cat", "mixed", "dinov3"])
@pytest.mark.parametrize("method", ["legrad", "chefer_cam", "naclip"])
def test_rotary_positions_are_not_moved_in_training(
    rope_type: str, method: str, snapshot: Callable[[nn.Module], object]
) -> None:
    model = randomised(rotary(rope_type=rope_type, rope_rescale_coords=2.0))
    images = torch.randn(1, 3, 8, 12, dtype=torch.float64)
    text, index = F.normalize(torch.randn(1, 24, dtype=torch.float64)), torch.tensor([0])
    expected = legrad.build(method, model)(images, text, index)
    model.train()
    before = snapshot(model)
    for engine in legrad.ENGINES:
        with torch.inference_mode():
            raw = legrad.build(method, model, engine=engine)(images.clone(), text, index)
        torch.testing.assert_close(raw, expected)
    assert snapshot(model) == before


@pytest.mark.parametrize("name", ["rotary", "rotary mixed"])
def test_the_last_score_is_differentiated_through_rotary_blocks(name: str) -> None:
    case = example(name)
    model, tower = case.model, open_tower(case.model)
    arguments = case.images[:1], case.text[:1], torch.tensor([0])
    options = {"engine": "autograd", "score_layer": "last", "pool": "cls"}
    with torch.inference_mode():
        raw = legrad.build("legrad", model, [0], **options)(*arguments)
    x, first = tower.embed(case.images[:1]), tower.blocks_on((4, 4))[0]
    weights = attention(first, x).detach().requires_grad_()
    z = block_output(first, x, weights)
    for index, block in enumerate(model.blocks[1:], 1):
        rope = model.rope.get_embed()
        z = block(z, rope=rope[index] if model.rope_mixed else rope)
    embedding = model.forward_head(model.norm(z), pre_logits=True)
    torch.testing.assert_close(embedding, own_embedding(model, case.images[:1]))
    (gradient,) = torch.autograd.grad((embedding @ case.text[0]).sum(), weights)
    expected = gradient.clamp(min=0).mean(dim=(0, 1, 2))[tower.prefix_count :].view(1, 4, 4)
    torch.testing.assert_close(raw, expected)


def test_a_rotary_block_is_not_used_without_a_grid() -> None:
    tower = open_tower(randomised(rotary()))
    tokens = torch.randn(1, 17, 24, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="a block with rotary positions is used without them"):
        tower.blocks[0].attention_inputs(tokens)
    assert len(tower.blocks_on((4, 4))[0].attention_inputs(tokens)) == 3
