"""SigLIP and CoCa against maps that the authors' package computed (tests/reference)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import legrad

REFERENCE = Path(__file__).parents[2] / "reference" / "published_poolers.npz"
with np.load(REFERENCE) as reference:
    ARRAYS = dict(reference)
ABOUT = json.loads(str(ARRAYS.pop("about")))
RUNS = [(tower, run) for tower, spec in ABOUT["towers"].items() for run in spec["runs"]]


def tensor(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name].copy())


def reference_tower(name: str) -> nn.Module:
    """The package's image tower, rebuilt with the open_clip and timm that this project uses.

    In float64: the reference was computed in float32, and this side adds no rounding of its own.
    """
    spec = ABOUT["towers"][name]
    prefix = f"{name}/weights/"
    weights = {k.removeprefix(prefix): tensor(k) for k in ARRAYS if k.startswith(prefix)}
    if "trunk" in spec:
        tower = TimmModel.__new__(TimmModel)
        nn.Module.__init__(tower)
        tower.trunk, tower.head = VisionTransformer(**spec["trunk"]), nn.Sequential()
        tower.trunk.load_state_dict(weights)
    else:
        vision, text = CLIPVisionCfg(**spec["vision"]), CLIPTextCfg(**ABOUT["text"])
        tower = CLIP(ABOUT["embed_dim"], vision, text).visual
        tower.load_state_dict(weights)
    return tower.double().eval()


def heatmaps(name: str, run: str, **options: object) -> Tensor:
    settings = ABOUT["towers"][name]["runs"][run]
    if settings.get("correction"):
        options["empty_text"] = tensor(f"{name}/empty")[0]
    explainer = legrad.build("legrad", reference_tower(name), settings["layers"], **options)
    pixels = tensor(f"{name}/pixels")
    text = tensor(f"{name}/text")
    image_index = torch.zeros(len(text), dtype=torch.long)
    raw = explainer(pixels[None].double() / 127.5 - 1, text, image_index)
    size = (pixels.shape[1], pixels.shape[2])
    return legrad.heatmap(raw, size, order=explainer.heat_order)


@pytest.mark.parametrize("engine", legrad.ENGINES)
@pytest.mark.parametrize(("name", "run"), RUNS)
def test_maps_are_the_published_ones(name: str, run: str, engine: str) -> None:
    official = {"coca": "official"} if name == "coca" else {}
    maps = heatmaps(name, run, engine=engine, **official)
    torch.testing.assert_close(maps, tensor(f"{name}/maps/{run}"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"), [("siglip", {"apply_trunk_norm": True}), ("coca", {"coca": "faithful"})]
)
def test_the_models_own_read_out_is_another_one(name: str, options: dict[str, object]) -> None:
    """Otherwise the comparison above would not tell the official settings from ours."""
    maps = heatmaps(name, "all", **options)
    assert (maps - tensor(f"{name}/maps/all")).abs().max() > 0.01


def test_the_reference_tells_layers_prompts_and_the_correction_apart() -> None:
    for name in ABOUT["towers"]:
        maps = tensor(f"{name}/maps/all")
        assert (maps[0] - maps[1]).abs().max() > 0.1
    plain, corrected, default = (
        tensor(f"siglip/maps/{run}") for run in ("all", "all_corrected", "default_corrected")
    )
    assert (plain - corrected).abs().amax(dim=(1, 2)).min() > 0.1
    assert (corrected - default).abs().max() > 0.1
