"""Write what the authors' package computes as GEM for a small random CLIP.

The package reads open_clip's tokens as [token, image, channel], which open_clip gave up after 2.24.
An environment of this project's lock file, outside this folder, with these on top of it will do:

    PYTHON -m pip install --no-deps gem-torch==1.0.1 open_clip_torch==2.24.0
    PYTHON -m pip install --no-deps einops opencv-python-headless
    PYTHON -I make_gem_reference.py published_gem.npz

Weights are float32 rounded to multiples of 1/64, so that they compress.
"""

import copy
import json
import sys
from importlib.metadata import version

import numpy as np
import torch
from gem.gem_wrapper import GEMWrapper
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

PINS = {"gem-torch": "1.0.1", "open_clip_torch": "2.24.0"}
EMBED_DIM = 16
VISION = {
    "layers": 8,
    "width": 24,
    "head_width": 8,
    "mlp_ratio": 2.0,
    "patch_size": 8,
    "image_size": 40,
    "ls_init_value": 0.5,
}
TEXT = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
PROMPTS = 2

# `size` of the image in pixels; the package's own arguments; the options that are ours.
RUNS = {
    "default": {"size": [40, 40], "package": {}, "ours": {}},
    "all_blocks": {"size": [40, 40], "package": {"depth": 9}, "ours": {"layers": 8}},
    "two_blocks": {"size": [40, 40], "package": {"depth": 3}, "ours": {"layers": 2}},
    "no_iteration": {
        "size": [40, 40],
        "package": {"ss_attn_iter": 0},
        "ours": {"iterations": 0},
    },
    "three_iterations": {
        "size": [40, 40],
        "package": {"ss_attn_iter": 3},
        "ours": {"iterations": 3},
    },
    "other_size": {"size": [32, 56], "package": {}, "ours": {}},
}


def random_clip(generator):
    model = CLIP(EMBED_DIM, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT)).eval()
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


@torch.no_grad()
def published_maps(model, image, text, **arguments):
    """The package's maps of one image, [prompt, height, width], made with a copy of `model`."""
    wrapper = GEMWrapper(copy.deepcopy(model), tokenizer=None, **arguments)
    wrapper.encode_text = lambda embeddings: embeddings[None]  # they are not sentences here
    return wrapper(image, text)[0]


def main(path):
    for name, pin in PINS.items():
        if version(name) != pin:
            raise SystemExit(f"{name} is {version(name)}, not {pin}")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20240407)
    model = random_clip(generator)
    text = torch.randn(PROMPTS, EMBED_DIM, generator=generator)
    text = torch.nn.functional.normalize(text, dim=-1)
    arrays = {f"weights/{name}": value.numpy() for name, value in model.visual.state_dict().items()}
    arrays["text"] = text.numpy()
    for height, width in sorted({tuple(run["size"]) for run in RUNS.values()}):
        pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        arrays[f"pixels/{height}x{width}"] = pixels.numpy()
    for name, run in RUNS.items():
        pixels = torch.from_numpy(arrays["pixels/{}x{}".format(*run["size"])])
        heat = published_maps(model, pixels[None] / 127.5 - 1, text, **run["package"])
        arrays[f"maps/{name}"] = heat.numpy()
    about = {
        "versions": {name: version(name) for name in (*PINS, "torch")},
        "embed_dim": EMBED_DIM,
        "vision": VISION,
        "text": TEXT,
        "runs": RUNS,
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
