"""Write what the authors' package computes for small random towers, CLIP's and those with poolers.

Run it from this folder with an interpreter that has `legrad-torch` instead of this project
(`make published` makes one):

    PUBLISHED_PYTHON -I make_published_reference.py published_legrad.npz published_poolers.npz

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
from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer

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

# `trunk` is timm's (SigLIP), `vision` open_clip's (CoCa). `layer_index` and `layers` as above.
SIDE, PROMPTS, THRESHOLD = 40, 2, 0.8
POOLED = {
    "siglip": {
        "trunk": {
            "img_size": SIDE,
            "patch_size": 8,
            "embed_dim": EMBED_DIM,
            "depth": 3,
            "num_heads": 3,
            "num_classes": 0,
            "class_token": False,
            "global_pool": "map",
        },
        "runs": {
            "all": {"correction": False, "layer_index": 0, "layers": None},
            "all_corrected": {"correction": True, "layer_index": 0, "layers": None},
            "default_corrected": {"correction": True, "layer_index": -2, "layers": 2},
        },
    },
    "coca": {
        "vision": {
            "layers": 3,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
            "image_size": SIDE,
            "attentional_pool": True,
            "attn_pooler_heads": 3,
        },
        "runs": {
            "all": {"layer_index": 0, "layers": None},
            "default": {"layer_index": -2, "layers": 2},
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
    randomise(model.visual, generator)
    return model


def randomise(visual, generator):
    for name, parameter in visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith(("weight", "gamma")):
            value = 1 + 0.2 * noise
        elif parameter.ndim == 1:
            value = 0.2 * noise
        else:
            value = noise * 1.5 / parameter[0].numel() ** 0.5
        parameter.data.copy_((value * 64).round() / 64)


def random_pooled(spec, generator):
    """A CLIP whose image tower has an attention pooler."""
    vision = spec.get("vision", {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8})
    model = CLIP(EMBED_DIM, CLIPVisionCfg(**vision), CLIPTextCfg(**TEXT)).eval()
    if "trunk" in spec:
        # timm has no configuration as small as this, so that the constructor cannot make it.
        model.visual = TimmModel.__new__(TimmModel)
        torch.nn.Module.__init__(model.visual)
        model.visual.trunk = VisionTransformer(**spec["trunk"]).eval()
        model.visual.head = torch.nn.Identity()
    randomise(model.visual, generator)
    return model


def random_text(count, generator):
    text = torch.randn(count, EMBED_DIM, generator=generator)
    return torch.nn.functional.normalize(text, dim=-1)


def random_pixels(side, generator):
    return torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)


def wrap(model, layer_index):
    """The package around a copy of `model`."""
    with contextlib.redirect_stdout(io.StringIO()):
        return LeWrapper(copy.deepcopy(model), layer_index=layer_index)


def published_maps(model, image, text, layer_index):
    """The package's maps of one image, [prompt, height, width], made with a copy of `model`."""
    return wrap(model, layer_index).compute_legrad(text, image=image)[0].detach()


def published_pooled_map(model, image, text, empty, settings):
    """The package's map of one image and one text: it would sum the maps of several."""
    wrapped = wrap(model, settings["layer_index"])
    if "correction" not in settings:
        return wrapped.compute_legrad_coca(text, image=image)[0, 0].detach()
    wrapped.empty_embedding = empty.T  # or the package downloads a tokenizer to make it
    return wrapped.compute_legrad_siglip(
        text,
        image=image,
        apply_correction=settings["correction"],
        correction_threshold=THRESHOLD,
    )[0, 0].detach()


def main(path, pooled_path):
    torch.set_num_threads(1)
    write(path, TOWERS, clip_arrays())
    write(pooled_path, POOLED, pooled_arrays())


def pooled_arrays():
    generator = torch.Generator().manual_seed(20240405)
    arrays = {}
    for tower, spec in POOLED.items():
        model = random_pooled(spec, generator)
        state = model.visual.trunk if "trunk" in spec else model.visual
        for name, value in state.state_dict().items():
            arrays[f"{tower}/weights/{name}"] = value.numpy()
        text, empty = random_text(PROMPTS, generator), random_text(1, generator)
        arrays[f"{tower}/text"], arrays[f"{tower}/empty"] = text.numpy(), empty.numpy()
        pixels = random_pixels(SIDE, generator)
        arrays[f"{tower}/pixels"] = pixels.numpy()
        image = pixels[None] / 127.5 - 1
        for run, settings in spec["runs"].items():
            maps = [published_pooled_map(model, image, one[None], empty, settings) for one in text]
            arrays[f"{tower}/maps/{run}"] = torch.stack(maps).numpy()
    return arrays


def clip_arrays():
    generator = torch.Generator().manual_seed(20240404)
    arrays = {}
    for tower, spec in TOWERS.items():
        model = random_clip(spec, generator)
        for name, value in model.visual.state_dict().items():
            arrays[f"{tower}/weights/{name}"] = value.numpy()
        prompts = max(settings["prompts"] for settings in spec["runs"].values())
        text = random_text(prompts, generator)
        arrays[f"{tower}/text"] = text.numpy()
        for side in sorted({settings["side"] for settings in spec["runs"].values()}):
            arrays[f"{tower}/pixels/{side}"] = random_pixels(side, generator).numpy()
        for run, settings in spec["runs"].items():
            image = torch.from_numpy(arrays[f"{tower}/pixels/{settings['side']}"])[None] / 127.5 - 1
            maps = published_maps(
                model, image, text[: settings["prompts"]], settings["layer_index"]
            )
            arrays[f"{tower}/maps/{run}"] = maps.numpy()
    return arrays


def write(path, towers, arrays):
    about = {
        "versions": {n: version(n) for n in ("legrad-torch", "open_clip_torch", "torch")},
        "embed_dim": EMBED_DIM,
        "text": TEXT,
        "towers": towers,
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
