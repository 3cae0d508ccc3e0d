"""TextSpan against the heat that the authors' code computed (tests/reference)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

import legrad

REFERENCE = Path(__file__).parents[2] / "reference" / "published_text_span.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = {name: torch.from_numpy(reference[name]) for name in reference if name != "about"}
    ABOUT = json.loads(str(reference["about"]))
SIDE = ABOUT["vision"]["image_size"]


@pytest.fixture(scope="module")
def model() -> CLIP:
    """In float64: the reference is in float32, and this side adds no rounding of its own."""
    model = CLIP(
        ABOUT["embed_dim"], CLIPVisionCfg(**ABOUT["vision"]), CLIPTextCfg(**ABOUT["text"])
    ).eval()
    model.visual.load_state_dict(
        {name[8:]: value for name, value in ARRAYS.items() if name.startswith("weights/")}
    )
    return model.double()


def heat(model: CLIP, run: str, *, clip_on_grid: bool = False) -> Tensor:
    options = {"background": ARRAYS["texts"]} if run == "background" else {}
    explainer = legrad.build("text_span", model, **options)
    images = ARRAYS["pixels"].double() / 127.5 - 1
    raw = explainer(images, ARRAYS[f"text/{run}"], torch.arange(len(images)))
    if clip_on_grid:
        raw = raw.clamp(min=0)
    return legrad.heatmap(raw, (SIDE, SIDE), order=explainer.heat_order)


@pytest.mark.parametrize("run", ["background", "none"])
def test_heat_is_the_published_one(model: CLIP, run: str) -> None:
    torch.testing.assert_close(heat(model, run), ARRAYS[f"heat/{run}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("run", ["background", "none"])
def test_the_reference_tells_where_maps_are_clipped(model: CLIP, run: str) -> None:
    """Otherwise the comparison above would accept maps that are cut off on the patch grid."""
    other = heat(model, run, clip_on_grid=True)
    assert (other - ARRAYS[f"heat/{run}"]).abs().max() > 0.05
