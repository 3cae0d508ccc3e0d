"""Write `published_legrad.npz`: what the authors' package computes for small random CLIP towers.

Run it from this folder with an interpreter that has `legrad-torch` instead of this project
(`make published` makes one):

    PUBLISHED_PYTHON -I make_published_reference.py published_legrad.npz

Weights are float32 rounded to multiples of 1/64, so that they compress.
"""

import contextlib
import copy
import io
import json
import sys
from importlib.metadata import version

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from legrad import LeWrapper

EMBED_DIM = 24
TEXT = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}

# `runs`: image side, prompts, the package's `layer_index` (0: every layer, -2: its default), ours.
TOWERS = {
    "gelu": {
        "quick_gelu": False,
        "vision": {"layers": 3, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 40},
        "runs": {
            "all": {"side": 40, "prompts": 3, "layer_index": 0, "layers": None},
            "default": {"side": 40, "prompts": 3, "layer_index": -2, "layers": 2},
        },
    },
    "quick_gelu_layer_scale": {
        "quick_gelu": True,
        "vision": {
            "layers": 3,
            "width": 32,
            "head_width": 16,
            "mlp_ratio": 3.0,
            "patch_size": 16,
            "image_size": 48,
            "ls_init_value": 0.5,
        },
        "runs": {
            "all": {"side": 48, "prompts": 2, "layer_index": 0, "layers": None},
            "default": {"side": 48, "prompts": 2, "layer_index": -2, "layers": 2},
            "other_size": {"side": 64, "prompts": 1, "layer_index": 0, "layers": None},
        },
    },
}


def random_clip(spec, generator):
    """A CLIP with every vision parameter random: LayerNorms, biases and LayerScale too."""
    model = CLIP(
        EMBED_DIM,
        CLIPVisionCfg(**spec["vision"]),
        CLIPTextCfg(**TEXT),
        quick_gelu=spec["quick_gelu"],
    ).eval()
    for name, parameter in model.visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith(("weight", "gamma")):
            value = 1 + 0.2 * noise
        elif parameter.ndim == 1:
            value = 0.2 * noise
        else:
            value = noise * 1.5 / parameter[0].numel() ** 0.5
        parameter.data.copy_((value * 64).round() / 64)
    return model


def published_maps(model, image, text, layer_index):
    """The package's maps of one image, [prompt, height, width], made with a copy of `model`."""
    with contextlib.redirect_stdout(io.StringIO()):
        wrapped = LeWrapper(copy.deepcopy(model), layer_index=layer_index)
    return wrapped.compute_legrad(text, image=image)[0].detach()


def main(path):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20240404)
    arrays = {}
    for tower, spec in TOWERS.items():
        model = random_clip(spec, generator)
        for name, value in model.visual.state_dict().items():
            arrays[f"{tower}/weights/{name}"] = value.numpy()
        prompts = max(settings["prompts"] for settings in spec["runs"].values())
        text = torch.randn(prompts, EMBED_DIM, generator=generator)
        text = torch.nn.functional.normalize(text, dim=-1)
        arrays[f"{tower}/text"] = text.numpy()
        for side in sorted({settings["side"] for settings in spec["runs"].values()}):
            pixels = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
            arrays[f"{tower}/pixels/{side}"] = pixels.numpy()
        for run, settings in spec["runs"].items():
            image = torch.from_numpy(arrays[f"{tower}/pixels/{settings['side']}"])[None] / 127.5 - 1
            maps = published_maps(
                model, image, text[: settings["prompts"]], settings["layer_index"]
            )
            arrays[f"{tower}/maps/{run}"] = maps.numpy()
    about = {
        "versions": {n: version(n) for n in ("legrad-torch", "open_clip_torch", "torch")},
        "embed_dim": EMBED_DIM,
        "text": TEXT,
        "towers": TOWERS,
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
