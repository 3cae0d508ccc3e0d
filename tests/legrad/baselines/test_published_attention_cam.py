"""AttentionCAM, `form="te"`, against maps that its authors' code computed (tests/reference).

It normalises a map on the patch grid, and a user of it normalises once more after upsampling; ours
is normalised once, after that, which is the same.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import legrad

REFERENCE = Path(__file__).parents[2] / "reference" / "published_attention_cam.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = {name: torch.from_numpy(reference[name]) for name in reference if name != "about"}
    ABOUT = json.loads(str(reference["about"]))
MAPS = ARRAYS["maps"]
CLASSES, IMAGES = MAPS.shape[:2]
SIZE = (ABOUT["trunk"]["img_size"],) * 2


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    """In float64: the reference is in float32, and this side adds no rounding of its own."""
    norm = functools.partial(nn.LayerNorm, eps=ABOUT["eps"])
    model = VisionTransformer(**ABOUT["trunk"], norm_layer=norm).double().eval()
    model.load_state_dict(
        {name[8:]: value for name, value in ARRAYS.items() if name.startswith("weights/")}
    )
    return model


def maps(model: VisionTransformer, form: str) -> Tensor:
    """Raw maps [class, image, row, column]."""
    text = model.head.weight.detach().repeat_interleave(IMAGES, dim=0)
    index = torch.arange(IMAGES).repeat(CLASSES)
    images = ARRAYS["pixels"].double() / 127.5 - 1
    raw = legrad.build("attention_cam", model, form=form)(images, text, index)
    return raw.unflatten(0, (CLASSES, IMAGES))


def test_maps_are_the_published_ones(model: VisionTransformer) -> None:
    ours = legrad.minmax(maps(model, "te").flatten(0, 1)).view_as(MAPS)
    torch.testing.assert_close(ours.float(), MAPS, rtol=0, atol=1e-5)


def test_normalised_once_more_on_the_pixels_it_is_the_same_heat(model: VisionTransformer) -> None:
    theirs = legrad.heatmap(MAPS.flatten(0, 1), SIZE)
    ours = legrad.heatmap(maps(model, "te").flatten(0, 1), SIZE)
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-5)


def test_the_reference_tells_the_forms_apart(model: VisionTransformer) -> None:
    """They differ by what CLS attends to itself; otherwise the paper's form would pass, too."""
    other = legrad.minmax(maps(model, "paper").flatten(0, 1).clamp(min=0)).view_as(MAPS)
    assert (other - MAPS).abs().max() > 0.01
