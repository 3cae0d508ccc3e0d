"""GEM against maps that the authors' package computed (tests/reference).

Its `depth=7` replaces the attention of six blocks: it counts from 1 up to, and without, the depth.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

import legrad

REFERENCE = Path(__file__).parents[2] / "reference" / "published_gem.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = {name: torch.from_numpy(reference[name]) for name in reference if name != "about"}
    ABOUT = json.loads(str(reference["about"]))


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


def heat(model: CLIP, size: list[int], **options: object) -> Tensor:
    text = ARRAYS["text"]
    image = ARRAYS["pixels/{}x{}".format(*size)][None].double() / 127.5 - 1
    raw = legrad.build("gem", model, **options)(image, text, torch.zeros(len(text)).long())
    return legrad.heatmap(raw, tuple(size))


@pytest.mark.parametrize("run", ABOUT["runs"])
def test_heat_is_the_published_one(model: CLIP, run: str) -> None:
    settings = ABOUT["runs"][run]
    ours = heat(model, settings["size"], **settings["ours"])
    torch.testing.assert_close(ours, ARRAYS[f"maps/{run}"], rtol=0, atol=1e-5)


def test_the_reference_tells_depths_iterations_and_prompts_apart(model: CLIP) -> None:
    """Otherwise the comparison above would accept the maps of another path."""
    default = ARRAYS["maps/default"]
    assert (default[0] - default[1]).abs().max() > 0.1
    for run in ("all_blocks", "two_blocks", "no_iteration", "three_iterations"):
        assert (ARRAYS[f"maps/{run}"] - default).abs().max() > 0.01
    assert (heat(model, [40, 40], layers=7) - default).abs().max() > 0.1
