"""Write what the authors' code computes as TextSpan's heat for a small random CLIP.

It is no package: CHECKOUT is the repository yossigandelsman/clip_text_span at commit 49f70f3. An
environment of this project's lock file, outside this folder, with these on top of it will do:

    PYTHON -m pip install einops imageio opencv-python-headless scikit-image
    PYTHON -I make_text_span_reference.py CHECKOUT published_text_span.npz

Their function that evaluates a batch returns, after its counts, the heat it thresholds: of the
class that the model predicts, after the mean over all classes is subtracted. With the classes t
and −t that mean is 0. Weights are float32 rounded to multiples of 1/64, so that they compress.
"""

import argparse
import json
import sys
from importlib.metadata import version

import numpy as np
import torch

EMBED_DIM = 16
SIDE = 40
VISION = {
    "layers": 3,
    "width": 24,
    "head_width": 8,
    "mlp_ratio": 2.0,
    "patch_size": 8,
    "image_size": SIDE,
}
TEXT = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
IMAGES, CLASSES = 2, 5


def random_clip(generator):
    from utils.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    model = CLIP(EMBED_DIM, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT)).eval()
    for name, parameter in model.visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith("weight"):
            value = 1 + 0.2 * noise
        elif parameter.ndim == 1:
            value = 0.2 * noise
        else:
            value = noise * 1.5 / parameter[0].numel() ** 0.5
        parameter.data.copy_((value * 64).round() / 64)
    return model


@torch.no_grad()
def published_heat(model, logger, image, classifier):
    """The index of the predicted class, and its heat [height, width]."""
    from compute_segmentations import eval_batch

    arguments = argparse.Namespace(save_img=False, device="cpu", image_size=SIDE, thr=0.0)
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
    labels[:, : SIDE // 2] = 1  # for its counts, which are not used here
    logger.reinit()
    predicted = int((model.encode_image(image[None], attn_method="head") @ classifier).argmax())
    *_, heat, _ = eval_batch(
        model, logger, image[None], labels, 0, arguments, classifier.numpy(), None
    )
    return predicted, heat.reshape(SIDE, SIDE)


def main(checkout, path):
    sys.path.insert(0, checkout)
    from prs_hook import hook_prs_logger

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20240408)
    model = random_clip(generator)
    logger = hook_prs_logger(model, "cpu")
    texts = torch.randn(CLASSES, EMBED_DIM, generator=generator)
    texts = torch.nn.functional.normalize(texts, dim=-1)
    pixels = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    arrays = {f"weights/{name}": value.numpy() for name, value in model.visual.state_dict().items()}
    arrays["pixels"], arrays["texts"] = pixels.numpy(), texts.numpy()
    for name, classes in {
        "background": texts,
        "none": torch.stack([texts[0], -texts[0]]),
    }.items():
        found = [published_heat(model, logger, i / 127.5 - 1, classes.T) for i in pixels]
        arrays[f"text/{name}"] = classes[[predicted for predicted, _ in found]].numpy()
        arrays[f"heat/{name}"] = np.stack([heat for _, heat in found])
    about = {
        "commit": "49f70f31bb13437a870ff8de340626b225500a22",
        "versions": {"torch": version("torch")},
        "embed_dim": EMBED_DIM,
        "vision": VISION,
        "text": TEXT,
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
