"""LeGrad of torchvision's vision transformer against a second, independent implementation.

torchcam's differentiates by the attention of torchvision's own modules. The same weights reach this
project's engines as a transformer of timm.
"""

import sys

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

import legrad

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="torchcam needs Python 3.11")

SIDE, PATCH, DEPTH, HEADS, WIDTH, HIDDEN, CLASSES = 16, 4, 3, 2, 16, 24, 5
NAMES = {
    "class_token": "cls_token",
    "conv_proj": "patch_embed.proj",
    "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.",
    "ln_1": "norm1",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
    "encoder.ln": "norm",
    "heads.head": "head",
}


@pytest.fixture(scope="module")
def theirs() -> TorchvisionTransformer:
    torch.manual_seed(3)
    model = TorchvisionTransformer(SIDE, PATCH, DEPTH, HEADS, WIDTH, HIDDEN, num_classes=CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


@pytest.fixture(scope="module")
def ours(theirs: TorchvisionTransformer) -> VisionTransformer:
    """timm's with the weights of `theirs`."""
    model = VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS,
        mlp_ratio=HIDDEN / WIDTH, num_classes=CLASSES,
    )  # fmt: skip
    weights = {}
    for name, value in theirs.state_dict().items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        weights[name] = value
    model.load_state_dict(weights)
    return model.double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4)).double()


def test_both_classify_alike(
    theirs: TorchvisionTransformer, ours: VisionTransformer, images: Tensor
) -> None:
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", legrad.ENGINES)
@pytest.mark.parametrize("layers", [[0, 1, 2], [1, 2], [0]])
def test_maps_are_those_of_torchcam(
    theirs: TorchvisionTransformer,
    ours: VisionTransformer,
    images: Tensor,
    layers: list[int],
    engine: str,
) -> None:
    from torchcam.methods import LeGrad

    classes = [4, 0, 2]
    blocks = list(theirs.encoder.layers)
    with LeGrad(theirs, [blocks[layer] for layer in layers]) as extract:
        scores = theirs(images)
        (expected,) = extract(classes, scores, normalized=False)

    texts = ours.head.weight.detach()[classes]
    raw = legrad.build("legrad", ours, layers, engine=engine)(images, texts, torch.arange(3))

    torch.testing.assert_close(raw, expected, rtol=1e-8, atol=1e-10 * float(expected.max()))
    assert expected.min() >= 0 and expected.max() > 0
