"""Write what ImageBind's own code computes for a small random model, and its names and shapes.

An environment of this project's lock file, with these in a folder DIR outside of this one, will do
(none of them is used by the project; torchaudio is for the file alone):

    PYTHON -m pip install --no-deps --target DIR imagebind-unofficial==0.1.1 torchaudio==2.11.0
    PYTHON -m pip install --no-deps --target DIR einops
    PYTHONPATH=DIR PYTHON make_imagebind_reference.py published_imagebind.npz

Of what the package imports, three things are not needed: pytorchvideo is stood in for by the clips
of its sampler at ImageBind's pin (from k·(d − 2)/2 on, k = 0, 1, 2), iopath by open, and
pkg_resources by nothing. Weights are made from their names, so that none need be stored.
"""

import functools
import json
import math
import sys
import types
import zlib
from importlib.metadata import version

import numpy as np
import torch

PINS = {"imagebind-unofficial": "0.1.1", "torchaudio": "2.11.0"}
SMALL = {
    "out_embed_dim": 32,
    "vision_embed_dim": 64,
    "vision_num_blocks": 3,
    "vision_num_heads": 4,
    "text_embed_dim": 16,
    "text_num_blocks": 2,
    "text_num_heads": 2,
    "audio_embed_dim": 48,
    "audio_num_blocks": 2,
    "audio_num_heads": 4,
    "depth_embed_dim": 16,
    "depth_num_blocks": 1,
    "depth_num_heads": 2,
    "thermal_embed_dim": 16,
    "thermal_num_blocks": 1,
    "thermal_num_heads": 2,
    "imu_embed_dim": 16,
    "imu_num_blocks": 1,
    "imu_num_heads": 2,
}
HUGE = {
    "vision_embed_dim": 1280,
    "vision_num_blocks": 32,
    "vision_num_heads": 16,
    "text_embed_dim": 1024,
    "text_num_blocks": 24,
    "text_num_heads": 16,
    "out_embed_dim": 1024,
}
SOUNDS = {
    "longer": (16_000, 9.3),
    "overlapping": (16_000, 3.1),
    "short": (16_000, 1.2),
    "other_rate": (44_100, 4.0),
}
"""Samples a second, and seconds, of each sound."""


def weights(shapes):
    """A state dict of noise that depends on the names alone.

    Tokens begin so small that what normalisation adds to a variance makes a difference.
    """
    state = {}
    for name, shape in shapes.items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("text.mask"):
            value = np.triu(np.full(shape, -math.inf), 1)
        elif name.endswith("log_logit_scale"):
            value = np.full(shape, math.log(20.0))
        elif len(shape) == 1:
            value = 0.2 * noise + name.endswith("weight")
        elif name.endswith(("bias_k", "bias_v")):
            value = 0.5 * noise
        elif name.endswith(("cls_token", "pos_embed", "embedding.weight")):
            value = 0.02 * noise
        elif len(shape) == 5:
            value = 0.02 * noise / math.prod(shape[1:]) ** 0.5
        else:
            value = 1.5 * noise / math.prod(shape[1:]) ** 0.5
        state[name] = torch.from_numpy(np.asarray(value, np.float32))
    return state


def sound(name):
    """Samples of a sound: tones that change, noise, and an offset."""
    rate, seconds = SOUNDS[name]
    time = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(len(time))
    tone = np.sin(2 * np.pi * (300 + 200 * time) * time) + 0.3 * np.sin(2 * np.pi * 3000 * time)
    return (0.2 * tone + 0.02 * noise + 0.05).astype(np.float32), rate


def pixels():
    """Two images as the image tower takes them."""
    generator = np.random.default_rng(17)
    return torch.from_numpy(generator.standard_normal((2, 3, 224, 224)).astype(np.float32))


def stand_in(name, **contents):
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module


class Sampler:
    """The clips of pytorchvideo's ConstantClipsPerVideoSampler at ImageBind's pin."""

    def __init__(self, clip_duration, clips_per_video):
        self.duration, self.clips, self.index = clip_duration, clips_per_video, 0

    def __call__(self, end, duration, annotation):
        index = self.index
        step = max(duration - self.duration, 0) / (self.clips - 1)
        self.index = index + 1
        return index * step, index * step + self.duration, index, 0, self.index == self.clips

    def reset(self):
        self.index = 0


def main(path):
    stand_in("pkg_resources")
    stand_in("iopath")
    stand_in("iopath.common")
    stand_in("iopath.common.file_io", g_pathmgr=types.SimpleNamespace(open=open))
    stand_in("pytorchvideo", transforms=None)
    stand_in("pytorchvideo.data")
    stand_in("pytorchvideo.data.clip_sampling", ConstantClipsPerVideoSampler=Sampler)
    stand_in("pytorchvideo.data.encoded_video", EncodedVideo=None)
    import torchaudio
    from imagebind import data
    from imagebind.models.imagebind_model import ImageBindModel

    for name, pin in PINS.items():
        if version(name) != pin:
            raise SystemExit(f"{name} is {version(name)}, not {pin}")
    torch.set_num_threads(1)
    linspace, torch.linspace = torch.linspace, functools.partial(torch.linspace, device="cpu")
    with torch.device("meta"):  # it asks the drop rates, which linspace makes, for their values
        huge = ImageBindModel(**HUGE)
    torch.linspace = linspace
    model = ImageBindModel(**SMALL).eval()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(weights(shapes))
    torchaudio.load = lambda name: (torch.from_numpy(sound(name)[0])[None], sound(name)[1])
    arrays = {}
    tokens = torch.randint(1, 49000, (3, 77), generator=torch.Generator().manual_seed(17))
    tokens[:, 0] = 49406
    for row, length in enumerate((3, 20, 76)):
        tokens[row, length:] = 0
        tokens[row, length] = 49407
    arrays["tokens"] = tokens.numpy()
    with torch.no_grad():
        arrays["images"] = model({"vision": pixels()})["vision"].numpy()
        arrays["texts"] = model({"text": tokens})["text"].numpy()
        for name in SOUNDS:
            spectra = data.load_and_transform_audio_data([name], "cpu")
            arrays[f"spectra/{name}"] = spectra[0].numpy()[:, :, ::4, ::3]  # every fourth band
            arrays[f"sounds/{name}"] = model({"audio": spectra})["audio"][0].numpy()
    resampled = torchaudio.functional.resample(
        torch.from_numpy(sound("other_rate")[0]), 44_100, 16_000
    )
    arrays["resampled"] = resampled.numpy()[::7]
    about = {
        "versions": {name: version(name) for name in (*PINS, "torch")},
        "small": shapes,
        "huge": {name: list(value.shape) for name, value in huge.state_dict().items()},
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
