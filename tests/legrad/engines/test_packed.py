"""Packed weights: the same products, where they are used and where not."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import legrad
from legrad import packed as module
from legrad.engines.closed_form import ClosedFormLeGrad
from legrad.engines.pooled import PooledLeGrad
from legrad.packed import PackedLinear, packed
from legrad.towers.tower import Tower, open_tower
from tests.legrad.conftest import EMBED_DIM, in_open_clip, make_case, relative_error

pytestmark = pytest.mark.skipif(not torch._C.has_mkl, reason="PyTorch without MKL packs nothing")

LARGE = {"layers": 2, "width": 256, "head_width": 64}
ROWS = 17  # CLS and the 4 x 4 patches of `VISION`


def packed_layer(layer: nn.Linear) -> PackedLinear:
    return PackedLinear(layer.weight, layer.bias, ROWS)


def packed_layers(tower: Tower) -> list[set[str]]:
    return [
        {name for name, value in vars(block).items() if isinstance(value, PackedLinear)}
        for block in tower.blocks
    ]


def large_tower() -> Tower:
    return open_tower(make_case(**LARGE).model)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, ROWS, 96), (ROWS, 96), (3, ROWS, 96), (1, 5, 96), (0, 96)])
@torch.no_grad()
def test_the_product_is_the_layers(shape: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(96, 40, bias=bias)
    x = torch.randn(shape)
    actual = packed_layer(layer)(x)
    torch.testing.assert_close(actual, layer(x), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_inputs_need_not_be_contiguous() -> None:
    layer = nn.Linear(96, 40)
    x = torch.randn(96, ROWS).T
    torch.testing.assert_close(packed_layer(layer)(x), layer(x))


def test_only_the_rows_it_was_packed_for_take_the_packed_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = packed_layer(nn.Linear(96, 40))
    monkeypatch.setattr(F, "linear", lambda *_: pytest.fail("the ordinary product was taken"))
    with torch.no_grad():
        layer(torch.randn(1, ROWS, 96))
    with pytest.raises(pytest.fail.Exception), torch.no_grad():
        layer(torch.randn(2, ROWS, 96))
    with pytest.raises(pytest.fail.Exception):
        layer(torch.randn(1, ROWS, 96))  # autograd


def test_autograd_sees_the_layer() -> None:
    layer = nn.Linear(96, 40)
    x = torch.randn(ROWS, 96, requires_grad=True)
    packed_layer(layer)(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(ROWS, -1))


def test_large_matrices_of_every_block_are_packed() -> None:
    tower = large_tower()
    assert packed_layers(packed(tower)) == [{"expand", "contract"}] * 2
    assert packed_layers(tower) == [set()] * 2
    wide = open_tower(make_case(**{**LARGE, "width": 512, "mlp_ratio": 0.5}).model)
    assert packed_layers(packed(wide)) == [{"qkv", "out"}] * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: open_tower(make_case().model),
        lambda: open_tower(make_case(**LARGE, dtype=torch.float64).model),
        lambda: open_tower(make_case(**LARGE, dtype=torch.bfloat16).model),
    ],
    ids=["small", "float64", "bfloat16"],
)
def test_other_towers_stay_as_they_are(make: Callable[[], Tower]) -> None:
    tower = make()
    assert packed(tower) is tower


def test_a_tower_whose_copies_are_too_large_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = large_tower()
    copies = 2 * 2 * 256 * 1024 * 4
    monkeypatch.setattr(module, "MOST_BYTES", copies - 1)
    assert packed(tower) is tower
    monkeypatch.setattr(module, "MOST_BYTES", copies)
    assert packed(tower) is not tower


def one_image(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    text = F.normalize(torch.randn(3, EMBED_DIM), dim=-1)
    return torch.randn(1, 3, *size), text, torch.zeros(3, dtype=torch.long)


def test_only_one_image_has_the_weights_put_in_order() -> None:
    model = make_case(**LARGE).model
    explainer = legrad.build("legrad", model)
    assert isinstance(explainer, ClosedFormLeGrad)
    expand = explainer._tower.blocks[1].expand
    explainer.encode(torch.randn(2, 3, 16, 16))
    copy.deepcopy(explainer)  # of the copies in another order nobody could make copies
    assert "_packed" not in vars(expand)
    explainer.encode(torch.randn(1, 3, 16, 16))
    assert "_packed" in vars(expand)


def test_a_tower_with_a_pooler_is_packed_too() -> None:
    trunk = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=256, depth=2, num_heads=4,
        class_token=False, global_pool="map", num_classes=0,
    ).eval()  # fmt: skip
    model = in_open_clip(trunk)
    text = F.normalize(torch.randn(2, 256), dim=-1)
    arguments = torch.randn(1, 3, 16, 16), text, torch.tensor([0, 0])
    explainer = legrad.build("legrad", model)
    assert isinstance(explainer, PooledLeGrad)
    assert packed_layers(explainer._tower) == [{"expand", "contract"}] * 2
    actual = explainer(*arguments)
    expected = legrad.build("legrad", model, engine="autograd")(*arguments)
    assert relative_error(actual, expected) <= 1e-5


@pytest.mark.parametrize("size", [(16, 16), (8, 24)], ids=["native", "other"])
def test_maps_are_the_reference_engines(
    size: tuple[int, int], snapshot: Callable[[nn.Module], object]
) -> None:
    model = make_case(**LARGE).model
    before = snapshot(model)
    arguments = one_image(size)
    explainer = legrad.build("legrad", model)
    actual = explainer(*arguments)
    assert snapshot(model) == before
    assert isinstance(explainer, ClosedFormLeGrad)
    assert packed_layers(explainer._tower) == [{"expand", "contract"}] * 2
    expected = legrad.build("legrad", model, engine="autograd")(*arguments)
    assert relative_error(actual, expected) <= 1e-5
