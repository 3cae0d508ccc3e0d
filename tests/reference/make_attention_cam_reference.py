"""Write what the code of Chefer et al. computes as AttentionCAM for a small random ViT.

It is no package: CHECKOUT is the repository hila-chefer/Transformer-Explainability at commit
c3e578f. An environment of this project's lock file, outside this folder, with these on top will do:

    PYTHON -m pip install einops opencv-python-headless
    PYTHON -I make_attention_cam_reference.py CHECKOUT published_attention_cam.npz

Their function wants a GPU and a grid of 14 x 14, and normalises the map on that grid. Weights are
float32 rounded to multiples of 1/64, so that they compress.
"""

import json
import sys
from importlib.metadata import version

import numpy as np
import torch

TRUNK = {
    "img_size": 56,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 4,
    "num_classes": 3,
    "qkv_bias": True,
}
IMAGES = 2


def random_classifier(generator):
    from baselines.ViT.ViT_new import VisionTransformer

    model = VisionTransformer(**TRUNK).eval()
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            value = 0.2 * noise + name.endswith("weight")
        else:
            value = noise * 1.5 / parameter[0].numel() ** 0.5
        parameter.data.copy_((value * 64).round() / 64)
    return model


def main(checkout, path):
    sys.path.insert(0, checkout)
    from baselines.ViT.ViT_explanation_generator import Baselines

    torch.Tensor.cuda = lambda self: self  # it asks for a GPU, and computes the same without
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20240409)
    model = random_classifier(generator)
    side = TRUNK["img_size"]
    pixels = torch.randint(0, 256, (IMAGES, 3, side, side), generator=generator, dtype=torch.uint8)
    published = Baselines(model)
    maps = [
        [published.generate_cam_attn(image[None] / 127.5 - 1, index=of) for image in pixels]
        for of in range(TRUNK["num_classes"])
    ]
    arrays = {f"weights/{name}": value.numpy() for name, value in model.state_dict().items()}
    arrays["pixels"] = pixels.numpy()
    arrays["maps"] = np.stack([[one.detach().numpy() for one in of] for of in maps])
    about = {
        "commit": "c3e578f76b954e8528afeaaee26de3f07e3fe559",
        "versions": {"torch": version("torch")},
        "trunk": TRUNK,
        "eps": model.norm.eps,
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
