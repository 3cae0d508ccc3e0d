"""LeGrad against maps that the authors' package computed (tests/reference)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

import legrad

REFERENCE = Path(__file__).parents[2] / "reference" / "published_legrad.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = dict(reference)
ABOUT = json.loads(str(ARRAYS.pop("about")))
RUNS = [(tower, run) for tower, spec in ABOUT["towers"].items() for run in spec["runs"]]


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[name].copy())


def reference_clip(tower: str) -> CLIP:
    """The package's model, rebuilt with the open_clip that this project uses, in float64.

    The reference was computed in float32; this side adds no rounding of its own.
    """
    spec = ABOUT["towers"][tower]
    model = CLIP(
        ABOUT["embed_dim"],
        CLIPVisionCfg(**spec["vision"]),
        CLIPTextCfg(**ABOUT["text"]),
        quick_gelu=spec["quick_gelu"],
    ).eval()
    prefix = f"{tower}/weights/"
    model.visual.load_state_dict(
        {name.removeprefix(prefix): tensor(name) for name in ARRAYS if name.startswith(prefix)}
    )
    return model.double()


@pytest.mark.parametrize("engine", legrad.ENGINES)
@pytest.mark.parametrize(("tower", "run"), RUNS)
def test_maps_are_the_published_ones(tower: str, run: str, engine: str) -> None:
    settings = ABOUT["towers"][tower]["runs"][run]
    explainer = legrad.build(
        "legrad", reference_clip(tower), layers=settings["layers"], engine=engine
    )
    image = tensor(f"{tower}/pixels/{settings['side']}")[None].double() / 127.5 - 1
    text = tensor(f"{tower}/text")[: settings["prompts"]]

    raw = explainer(image, text, torch.zeros(len(text), dtype=torch.long))
    heat = legrad.heatmap(raw, size=(settings["side"], settings["side"]))

    torch.testing.assert_close(heat, tensor(f"{tower}/maps/{run}"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tower", ABOUT["towers"])
def test_the_reference_tells_layers_and_prompts_apart(tower: str) -> None:
    """Otherwise the comparison above would accept maps of the wrong layers or the wrong prompt."""
    every, default = tensor(f"{tower}/maps/all"), tensor(f"{tower}/maps/default")
    assert (every - default).abs().amax() > 0.1
    assert (every[0] - every[1]).abs().amax() > 0.1
