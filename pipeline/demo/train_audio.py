"""Train the demo's audio tower: `python -m pipeline.demo.train_audio`; a minute on a core.

Supervision is a sound and the name of its class: its vector is to lie where the CLIP has the text,
which stays as it is. No sound and no image are ever seen together.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from jsonargparse import auto_cli
from safetensors.torch import save_file
from torch import Tensor

from pipeline.demo.sprites import CLASSES
from pipeline.demo.timbres import TRAIN_SEED, make_sound
from pipeline.models.audio.spectrum import clips
from pipeline.models.audio.tower import AudioTower
from pipeline.models.demo import AUDIO_SIZES, AUDIO_WEIGHTS, TEMPLATE, create, tokenize

BATCH = 96
RATE = 3e-3
WARM_UP = 10  # steps
SHARPNESS = 20.0
"""What cosines are multiplied with before a class is chosen by them."""
SHIFT = 24
"""Frames that a sound may begin later."""


def train(sounds: int = 10, steps: int = 150, output: Path = AUDIO_WEIGHTS) -> None:
    """Train the audio tower and write its weights.

    Args:
        sounds: of each class.
        steps: of `BATCH` sounds.
        output: the float16 safetensors file to write.
    """
    torch.manual_seed(0)
    texts = _texts()
    spectra, classes = _sounds(sounds)
    tower = AudioTower(AUDIO_SIZES).train()
    optimizer = torch.optim.AdamW(tower.parameters(), RATE, weight_decay=0.01)
    started = time.monotonic()
    for step in range(steps):
        rate = min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = RATE * rate
        chosen = torch.randint(len(classes), (BATCH,))
        shift = int(torch.randint(SHIFT, ()))
        vectors = F.normalize(tower(spectra[chosen].roll(shift, -1)), dim=-1)
        loss = _loss(vectors, texts, classes[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 25 == 24:
            seconds = time.monotonic() - started
            print(f"{step + 1} steps  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
    save_file({k: v.half().contiguous() for k, v in tower.state_dict().items()}, output)


def _loss(
    vectors: Float[Tensor, "sound embed"],
    texts: Float[Tensor, "name embed"],
    classes: Int64[Tensor, " sound"],
) -> Float[Tensor, ""]:
    """The right text is the nearest one, and near."""
    cosines = vectors @ texts.T
    right = cosines.gather(1, classes[:, None])
    return F.cross_entropy(SHARPNESS * cosines, classes) + 4 * (1 - right).mean()


@torch.no_grad()
def _texts() -> Float[Tensor, "name embed"]:
    model = create()
    prompts = tokenize([TEMPLATE.format(name) for name in CLASSES])
    texts: Tensor = model.encode_text(prompts, normalize=True)
    return texts


def _sounds(count: int) -> tuple[Float[Tensor, "sound 1 128 204"], Int64[Tensor, " sound"]]:
    """Spectra of sounds of every class, and the classes; all clips of so short a sound are one."""
    spectra = [
        clips(torch.from_numpy(make_sound(name, TRAIN_SEED, number)))[0]
        for name in CLASSES
        for number in range(count)
    ]
    return torch.stack(spectra), torch.arange(len(CLASSES)).repeat_interleave(count)


if __name__ == "__main__":
    auto_cli(train)
