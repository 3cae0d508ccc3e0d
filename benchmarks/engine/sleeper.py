"""A model that sleeps for the time a GPU would take, and shards of images for it."""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from legrad import HeatOrder
from pipeline.config import AnnotateConfig
from pipeline.demo.run import SHARDS
from pipeline.inputs.prompts import PromptedSample, PromptReader
from pipeline.inputs.reader import ShardReader, in_batches
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import Maps, PromptExplainer
from pipeline.models.preprocess import Preprocess
from pipeline.run.worker import Worker

INPUT, GRID = 224, 16
"""Pixels and patches along a side of the input of bigG-14 and L-14."""
PICTURES = 8
"""Different images in a shard, which come again and again."""
GRAIN = 4


@dataclass(frozen=True)
class Pace:
    """How a stand-in works.

    Attributes:
        seconds: that an image takes it.
        maps: that it hands back in turn.
        log: folder for a file of each process, with a line of begin and end for every batch; None
            where nobody asks.
    """

    seconds: float
    maps: Float32[Tensor, "map rows columns"]
    log: Path | None = None

    def worker(self) -> Callable[[AnnotateConfig], Worker]:
        """What makes a real worker with such a model; it may travel to another process."""
        return functools.partial(Worker, make_explainer=functools.partial(_sleeper, self))


class Sleeper:
    """Stands in for a model on a GPU: takes a fixed time per image, and no core for it."""

    device = torch.device("cpu")
    embed_width = GRID
    heat_order = HeatOrder.UPSAMPLE_NORMALISE

    def __init__(self, pace: Pace) -> None:
        self._pace, self._at = pace, 0
        grey = torch.full((3, 1, 1), 0.5)
        self._preprocess = Preprocess(INPUT, grey, grey)

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """As a real model."""
        return self._preprocess.squash(pixels)

    def has_prompts(self, sample: PromptedSample) -> bool:
        """As a real model."""
        return bool(sample.wanted)

    def model_input(self, samples: Sequence[PromptedSample]) -> Float[Tensor, "batch 3 h w"]:
        """Pixels as a real model takes them; on a GPU, normalising is the GPU's."""
        batch = torch.stack([sample.pixels for sample in samples])
        return self._preprocess.normalise(batch, self.device, torch.bfloat16)

    def __call__(self, samples: Sequence[PromptedSample]) -> list[Maps]:
        """The next maps, after a sleep that begins when the pixels of the batch are together."""
        torch.stack([sample.pixels for sample in samples])
        began = time.time()
        time.sleep(self._pace.seconds * len(samples))
        if self._pace.log is not None:
            with (self._pace.log / str(os.getpid())).open("a") as stream:
                stream.write(f"{began} {time.time()} {len(samples)}\n")
        return [self._maps(sample) for sample in samples]

    def _maps(self, sample: PromptedSample) -> Maps:
        count, stock = len(sample.wanted), self._pace.maps
        raw = stock[torch.arange(self._at, self._at + count) % len(stock)]
        self._at = (self._at + count) % len(stock)
        texts = [prompt.texts[0] for prompt in sample.wanted]
        return Maps(sample.wanted, raw, [0.25] * count, texts, cut=0)


def _sleeper(pace: Pace, config: AnnotateConfig) -> Sleeper:
    return Sleeper(pace)


def real_maps(grid: int = GRID) -> Float32[Tensor, "map {grid} {grid}"]:
    """Maps of the bundled model for the images of its first shard, on another grid."""
    config = AnnotateConfig(input=str(SHARDS), limit_samples=16)
    explain, prompts_of = PromptExplainer(config), PromptReader(config.prompts)
    read = ShardReader.of(config, lambda raw: prompts_of(raw.fields), explain.squash)
    (batch,) = in_batches(read(find_shards(config.patterns)[0]), config.engine.batch_size)
    found = explain([sample for sample in batch if isinstance(sample, Sample)])
    raw = torch.cat([maps.raw for maps in found]).float()
    resampled: Tensor = interpolate(raw[:, None], (grid, grid), mode="bilinear")[:, 0]
    return resampled


def jpegs(size: tuple[int, int], count: int = PICTURES, grain: int = GRAIN) -> list[bytes]:
    """JPEGs of smooth noise, of quality 90.

    Args:
        size: (width, height).
        count: how many.
        grain: pixels from one random value to the next: at 4, a file has some 0.5 bytes per pixel,
            as a detailed photograph does, at 16 half of that.
    """
    random = np.random.default_rng(0)
    width, height = size
    encoded = []
    for _ in range(count):
        coarse = random.integers(
            0, 256, (max(1, height // grain), max(1, width // grain), 3), dtype=np.uint8
        )
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        image.save(file := io.BytesIO(), "JPEG", quality=90)
        encoded.append(file.getvalue())
    return encoded


def shard_of(pictures: Sequence[bytes], images: int, prompts: int, name: str = "") -> bytes:
    """A tar of images, which come again and again, with labels beside each.

    Args:
        pictures: the JPEGs.
        images: samples in the shard.
        prompts: labels of each.
        name: what the keys begin with.
    """
    label = json.dumps({"labels": [f"thing {number}" for number in range(prompts)]}).encode()
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as archive:
        for image in range(images):
            for field, data in (("jpg", pictures[image % len(pictures)]), ("json", label)):
                member = tarfile.TarInfo(f"{name}{image:06d}.{field}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def make_shards(
    folder: Path,
    shards: int,
    images: int,
    size: tuple[int, int],
    prompts: int,
    grain: int = GRAIN,
) -> None:
    """Shards in a folder of their own; see `jpegs` and `shard_of`."""
    folder.mkdir(parents=True)
    pictures = jpegs(size, grain=grain)
    for shard in range(shards):
        data = shard_of(pictures, images, prompts, f"{shard:05d}")
        (folder / f"{shard:05d}.tar").write_bytes(data)


def slept(log: Path) -> list[tuple[float, float, int]]:
    """Begin, end and images of every sleep of all processes, as their logs say."""
    rows = [line.split() for path in log.iterdir() for line in path.read_text().splitlines()]
    return [(float(began), float(ended), int(images)) for began, ended, images in rows]
