"""GradCAM against the maps of captum and grad-cam (tests/reference).

With Z [N, D] the output of a block, g = ∂s/∂Z, n = N − 1 patches, and the sum over i of

    ours    E_j = ReLU(1/D Σ_k w_k Z_jk),  w_k = 1/n Σ_i g_ik,  CLS in the sum, or not
    captum  E_j = Σ_k w_k Z_jk,            w_k = 1/N Σ_i g_ik,  CLS in the sum

Ours is eq. 10 of LeGrad's paper. captum keeps negative values unless told otherwise. grad-cam is
ours without CLS and without 1/D, and further:

- it normalises a map on the patch grid, by (E − min) / (max − min + 1e-7), resizes it, and then
  normalises it again; ours are normalised once, after they are resized;
- of several blocks it averages normalised maps, where ours averages the maps themselves;
- for a ViT its manual names the norm before the attention of the last block as the target. Tokens
  other than CLS have a gradient there, and none at the output of that block.

Factors common to a map vanish when it is normalised. captum's other candidate, its LRP, has rules
for none of LayerNorm, GELU and attention and refuses a transformer.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import legrad

REFERENCE = Path(__file__).parents[2] / "reference" / "published_gradcam.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = {name: torch.from_numpy(reference[name]) for name in reference if name != "about"}
    ABOUT = json.loads(str(reference["about"]))
DEPTH, WIDTH = ABOUT["trunk"]["depth"], ABOUT["trunk"]["embed_dim"]
SIZE = tuple(ABOUT["trunk"]["img_size"])
CLASSES, IMAGES = ABOUT["classes"], len(ARRAYS["pixels"])


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    """In float64: the reference is in float32, and this side adds no rounding of its own."""
    model = VisionTransformer(**ABOUT["trunk"]).double().eval()
    model.load_state_dict(
        {name[8:]: value for name, value in ARRAYS.items() if name.startswith("weights/")}
    )
    return model


def maps(model: VisionTransformer, layer: int, *, with_cls: bool) -> Tensor:
    """Raw maps [class, image, row, column]."""
    explainer = legrad.build("gradcam", model, [layer], with_cls=with_cls)
    text = model.head.weight.detach()[CLASSES].repeat_interleave(IMAGES, dim=0)
    index = torch.arange(IMAGES).repeat(len(CLASSES))
    raw = explainer(ARRAYS["pixels"].double() / 127.5 - 1, text, index)
    return raw.unflatten(0, (len(CLASSES), IMAGES))


def resized(raw: Tensor) -> Tensor:
    """Pixels [class, image, height, width] of maps that are normalised on the patch grid."""
    heat = legrad.heatmap(raw.flatten(0, 1), SIZE, order=legrad.HeatOrder.NORMALISE_UPSAMPLE)
    return heat.unflatten(0, raw.shape[:2])


def again(heat: Tensor) -> Tensor:
    return legrad.minmax(heat.flatten(0, 1)).view_as(heat)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", range(DEPTH))
def test_captum_gives_the_same_up_to_a_factor(model: VisionTransformer, layer: int) -> None:
    signed = ARRAYS[f"captum/{layer}"]
    assert signed.min() < 0
    tokens = signed.shape[-1]
    theirs = signed[..., 1:].clamp(min=0).unflatten(-1, ABOUT["grid"])
    ours = maps(model, layer, with_cls=True) * WIDTH * (tokens - 1) / tokens
    close(ours / theirs.max(), theirs / theirs.max())


@pytest.mark.parametrize("layer", range(DEPTH - 1))
def test_grad_cam_gives_the_same_pixels(model: VisionTransformer, layer: int) -> None:
    close(again(resized(maps(model, layer, with_cls=False))), ARRAYS[f"grad_cam/{layer}"])


def test_grad_cam_averages_normalised_maps_of_several_blocks(model: VisionTransformer) -> None:
    each = torch.stack([resized(maps(model, layer, with_cls=False)) for layer in (0, 1)])
    close(again(each.mean(0)), ARRAYS["grad_cam/several"])


def test_the_reference_tells_variants_apart(model: VisionTransformer) -> None:
    """Otherwise the comparisons above would accept another block, or CLS in the sum."""
    for name in ("several", "norm1", "1"):
        assert (ARRAYS[f"grad_cam/{name}"] - ARRAYS["grad_cam/0"]).abs().max() > 0.1
    with_cls = again(resized(maps(model, 0, with_cls=True)))
    assert (with_cls - ARRAYS["grad_cam/0"]).abs().max() > 0.1
