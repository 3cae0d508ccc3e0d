"""Write what captum and grad-cam compute as GradCAM for a small random vision transformer.

Both depend on PyTorch only loosely, so that an environment of this project's lock file, outside
this folder, with the pinned versions on top of it will do:

    PYTHON -m pip install captum==0.9.0 grad-cam==1.5.7
    PYTHON -I make_gradcam_reference.py published_gradcam.npz

Weights are float32 rounded to multiples of 1/64, so that they compress.
"""

import json
import sys
from importlib.metadata import version

import numpy as np
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.vision_transformer import VisionTransformer
from torch import nn

PINS = {"captum": "0.9.0", "grad-cam": "1.5.7"}
TRUNK = {
    "img_size": [32, 24],
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 3,
}
GRID = (4, 3)
CLASSES = (0, 2)
IMAGES = 2


def random_classifier(generator):
    model = VisionTransformer(**TRUNK).eval()
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            value = 0.2 * noise + name.endswith("weight")
        else:
            value = noise * 1.5 / parameter[0].numel() ** 0.5
        parameter.data.copy_((value * 64).round() / 64)
    return model


class ChannelsFirst(nn.Module):
    """A block with a place where its output is [image, channel, token], as captum expects it.

    It averages gradients over all dimensions from the third on and sums over the second: of a
    block's own output, [image, token, channel], that would be the wrong way round.
    """

    def __init__(self, block):
        super().__init__()
        self.block, self.place = block, nn.Identity()

    def forward(self, x, **kwargs):
        return self.place(self.block(x, **kwargs).mT).mT


def captum_maps(model, images, layer):
    """Signed sums over the channels, [class, image, token]."""
    block = model.blocks[layer]
    model.blocks[layer] = ChannelsFirst(block)
    attribute = LayerGradCam(model, model.blocks[layer].place).attribute
    maps = torch.stack([attribute(images, target=of)[:, 0] for of in CLASSES])
    model.blocks[layer] = block
    return maps.detach().numpy()


def grad_cam_maps(model, images, modules):
    """Pixels in 0..1, [class, image, height, width]."""

    def on_grid(tokens):
        return tokens[:, 1:].mT.reshape(len(tokens), -1, *GRID)

    with GradCAM(model, modules, reshape_transform=on_grid) as cam:
        return np.stack(
            [cam(images, [ClassifierOutputTarget(of)] * len(images)) for of in CLASSES]
        ).astype(np.float32)


def main(path):
    for name, pin in PINS.items():
        if version(name) != pin:
            raise SystemExit(f"{name} is {version(name)}, not {pin}")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20240406)
    model = random_classifier(generator)
    height, width = TRUNK["img_size"]
    pixels = torch.randint(
        0, 256, (IMAGES, 3, height, width), generator=generator, dtype=torch.uint8
    )
    images = pixels / 127.5 - 1
    blocks = model.blocks
    arrays = {f"weights/{name}": value.numpy() for name, value in model.state_dict().items()}
    arrays["pixels"] = pixels.numpy()
    for layer in range(len(blocks)):
        arrays[f"captum/{layer}"] = captum_maps(model, images, layer)
    for layer in range(len(blocks) - 1):
        arrays[f"grad_cam/{layer}"] = grad_cam_maps(model, images, [blocks[layer]])
    arrays["grad_cam/several"] = grad_cam_maps(model, images, [blocks[0], blocks[1]])
    arrays["grad_cam/norm1"] = grad_cam_maps(model, images, [blocks[-1].norm1])
    versions = {name: version(name) for name in (*PINS, "timm", "torch")}
    about = {"versions": versions, "trunk": TRUNK, "grid": GRID, "classes": CLASSES}
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
