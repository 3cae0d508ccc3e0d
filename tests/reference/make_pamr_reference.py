"""Write what the authors' own PAMR makes of small random maps and images.

Their repository, at COMMIT, is cloned outside this folder; only its module pamr.py is loaded:

    git clone https://github.com/visinf/1-stage-wseg CHECKOUT
    PYTHON -I make_pamr_reference.py CHECKOUT/models/mods/pamr.py published_pamr.npz
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch

COMMIT = "d905fca1134d5c33551422a76d82d8b0f00c48cc"
DIGEST = "ca127dd28e88e35c89b659ca715dd1d67ca195dc12587c65eaeafb04fa233b95"
CASES = {"paper": ((1, 2, 4, 8, 12, 24), 10), "default": ((1, 2, 4, 8), 10), "once": ((1, 3), 1)}
HEIGHT, WIDTH, MAPS = 28, 33, 3


def load(path):
    source = Path(path).read_bytes()
    if hashlib.sha256(source).hexdigest() != DIGEST:
        raise SystemExit(f"{path} is not that of {COMMIT}")
    spec = importlib.util.spec_from_file_location("pamr", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PAMR


def random_image(generator):
    """Blocks of one colour, with noise on one half of them, so that both kinds of place occur."""
    blocks = torch.randint(0, 256, (3, 4, 5), generator=generator).float()
    image = torch.nn.functional.interpolate(blocks[None], (HEIGHT, WIDTH), mode="nearest")[0]
    noise = torch.randint(-20, 21, image.shape, generator=generator)
    noise[:, :, : WIDTH // 2] = 0
    return (image + noise).clamp(0, 255).to(torch.uint8)


def main(source, path):
    pamr = load(source)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20200616)
    guide = random_image(generator)
    maps = torch.randint(0, 257, (MAPS, HEIGHT, WIDTH), generator=generator) / 256
    arrays = {"guide": guide.numpy(), "maps": maps.numpy()}
    for name, (dilations, iterations) in CASES.items():
        refine = pamr(iterations, list(dilations))
        arrays[f"refined/{name}"] = refine(guide[None] / 255, maps[None])[0].numpy()
    about = {"commit": COMMIT, "torch": torch.__version__, "cases": CASES}
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
