"""Train the demo's CLIP from scratch: `python -m pipeline.demo.train`.

Supervision is an image and the names of what is in it, nothing else: a sigmoid cross-entropy
between every image and the prompt of every class. That LeGrad then finds the objects is a finding.
Every scene is drawn once and never seen again. Without a GPU this takes under two hours on 2 cores.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse import auto_cli
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from pipeline.config import ExecutionConfig, ModelConfig, RunConfig
from pipeline.demo.map_quality import measure
from pipeline.demo.scenes import HELD_OUT_SEED, TRAIN_SEED, make_scene
from pipeline.demo.sprites import CLASSES, load_sprites
from pipeline.models.demo import TEMPLATE, WEIGHTS, create, normalise, tokenize
from pipeline.models.loading import LoadedClip

BATCH = 64
WARM_UP = 100  # steps
MUON_RATE = 3e-3
ADAM_RATE = 1e-3
WEIGHT_DECAY = 0.05
REPORT_SECONDS = 30.0
MEASURE_EVERY = 25_600  # images
MEASURE_SCENES = 64


class TrainingScenes(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, uint8 [3, side, side], and the classes in it, multi-hot [class]."""

    def __init__(self, length: int, side: int, font: Path | None) -> None:
        """Draw scenes 0 … `length` − 1 of the training stream at `side` × `side` pixels."""
        self.length, self.side = length, side
        self.sprites = load_sprites(font)
        self.index = {name: i for i, name in enumerate(CLASSES)}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = make_scene(self.sprites, TRAIN_SEED, index, self.side)
        present = torch.zeros(len(CLASSES))
        present[[self.index[name] for name in scene.masks]] = 1
        return torch.from_numpy(scene.image).permute(2, 0, 1), present


def train(
    images: int = 128_000,
    output: Path = WEIGHTS,
    font: Path | None = None,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    seed: int = 0,
) -> None:
    """Train the demo's CLIP and write its weights.

    Args:
        images: training scenes, each seen once.
        output: the float16 safetensors file to write; also written at every measurement.
        font: Noto Color Emoji, where it is not in the usual places.
        device: a torch device.
        seed: of the initial weights; the scenes do not depend on it.
    """
    torch.manual_seed(seed)
    model = create(pretrained=None).train().to(device)
    side = model.visual.image_size[0]
    scenes = TrainingScenes(images // BATCH * BATCH, side, font)
    held_out = [make_scene(scenes.sprites, HELD_OUT_SEED, i, side) for i in range(MEASURE_SCENES)]
    loader = DataLoader(scenes, BATCH, num_workers=1, prefetch_factor=8)
    prompts = tokenize([TEMPLATE.format(name) for name in CLASSES]).to(device)
    optimizer, progress = _Optimizer(model, len(loader)), _Progress(len(scenes))
    for step, (pixels, present) in enumerate(loader):
        loss = _loss(model, normalise(pixels.to(device).float()), prompts, present.to(device))
        optimizer.step(loss)
        seen = (step + 1) * BATCH
        progress.update(seen, loss.item())
        if seen % MEASURE_EVERY == 0 or seen == len(scenes):
            _save(model, output)
            found = measure(_loaded(output, device), held_out)
            print(f"{seen:>8,} images  held-out scenes: {found}", flush=True)


def _loss(
    model: open_clip.CLIP,
    images: Float[Tensor, "batch 3 side side"],
    prompts: Tensor,
    present: Float[Tensor, "batch class"],
) -> Float[Tensor, ""]:
    with torch.autocast(images.device.type, torch.bfloat16):
        image = model.encode_image(images, normalize=True).float()
        text = model.encode_text(prompts, normalize=True).float()
    logits = model.logit_scale.exp() * image @ text.T + model.logit_bias
    return F.binary_cross_entropy_with_logits(logits, present, reduction="sum") / len(images)


class _Optimizer:
    """Muon for the weight matrices of the blocks, AdamW for everything else.

    Muon learns this task from about half the images that AdamW alone needs.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (matrices if "resblocks" in name and parameter.ndim == 2 else rest).append(parameter)
        self.parts: tuple[Optimizer, ...] = (
            Muon(matrices, MUON_RATE, WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
            AdamW(rest, ADAM_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY),
        )
        self.schedules = [
            LambdaLR(part, lambda step: min(1, (step + 1) / WARM_UP) * _cosine(step / steps))
            for part in self.parts
        ]
        self.parameters = matrices + rest

    def step(self, loss: Float[Tensor, ""]) -> None:
        """One descent along the gradient of `loss`."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, schedule in zip(self.parts, self.schedules, strict=True):
            part.step()
            part.zero_grad()
            schedule.step()


def _cosine(done: float) -> float:
    """From 1 at the start to 0 at the end."""
    return (1 + math.cos(math.pi * done)) / 2


class _Progress:
    """A line every `REPORT_SECONDS`: images seen, mean loss since, pace, time left."""

    def __init__(self, total: int) -> None:
        self.total, self.started = total, time.monotonic()
        self.reported, self.losses = self.started, list[float]()

    def update(self, seen: int, loss: float) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if now - self.reported < REPORT_SECONDS and seen < self.total:
            return
        pace = seen / (now - self.started)
        minutes = (self.total - seen) / pace / 60
        mean = sum(self.losses) / len(self.losses)
        print(
            f"{seen:>8,} of {self.total:,} images  loss {mean:.3f}  "
            f"{pace:.0f} images/s  {minutes:.0f} min left",
            flush=True,
        )
        self.reported, self.losses = now, []


def _save(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous().cpu() for k, v in model.state_dict().items()}, path)


def _loaded(weights: Path, device: str) -> LoadedClip:
    """The weights as a run loads them: what is measured is what is kept."""
    model, engine = ModelConfig(pretrained=str(weights)), ExecutionConfig(device=device)
    return LoadedClip(RunConfig(model=model, engine=engine))


if __name__ == "__main__":
    auto_cli(train)
