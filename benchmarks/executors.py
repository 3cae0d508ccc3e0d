"""How busy the executors keep a model: one that sleeps instead of computing."""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from benchmarks.timing import table
from legrad import HeatOrder
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.images import squash
from pipeline.inputs.prompts import PromptedSample
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import Maps
from pipeline.outputs.ledger import Ledger
from pipeline.run.executors import make_executor
from pipeline.run.run import do_all
from pipeline.run.worker import Worker

WIDTH, HEIGHT, INPUT, GRID = 500, 375, 224, 16
LABELS = ["first", "second"]
SECONDS_PER_IMAGE = 0.010
LOG = "sleeps"


class Sleeper:
    """Stands in for a model: sleeps a fixed time per image, and writes down when."""

    device = torch.device("cpu")
    embed_width = GRID
    heat_order = HeatOrder.UPSAMPLE_NORMALISE

    def __init__(self, log: Path) -> None:
        self._log = log / str(os.getpid())
        self._random = torch.Generator().manual_seed(0)

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """What a real model would have done to an image."""
        return squash(pixels, INPUT)

    def has_prompts(self, sample: PromptedSample) -> bool:
        """As for a real model."""
        return bool(sample.wanted)

    def __call__(self, samples: Sequence[PromptedSample]) -> list[Maps]:
        """Random maps, after a sleep."""
        started = time.time()
        time.sleep(SECONDS_PER_IMAGE * len(samples))
        with self._log.open("a") as stream:
            stream.write(f"{started} {time.time()}\n")
        return [self._maps(sample) for sample in samples]

    def _maps(self, sample: PromptedSample) -> Maps:
        count = len(sample.wanted)
        raw = torch.rand(count, GRID, GRID, generator=self._random)
        return Maps(sample.wanted, raw, [0.0] * count, LABELS[:count], cut=0)


def measure(shards: int, images: int, actors: int) -> dict[str, dict[str, float]]:
    """Images per second and busy fraction of every design, within the span of the sleeps.

    Args:
        shards: how many.
        images: in each.
        actors: of Ray.
    """
    results = {}
    with TemporaryDirectory() as folder:
        data = Path(folder, "data")
        make_shards(data, shards, images)
        for in_flight in (1, 2):
            for engine in (
                ExecutionConfig(executor="local", workers=1, threads=1, shards_in_flight=in_flight),
                ExecutionConfig(
                    executor="ray", workers=actors, threads=1, shards_in_flight=in_flight
                ),
            ):
                design = f"{engine.executor}, {engine.workers} x {in_flight}"
                results[design] = _run(data, Path(folder, design), engine)
    return results


def make_shards(folder: Path, shards: int, images: int) -> None:
    """Tars of JPEG photographs' size and detail: smooth noise, 500 × 375 pixels."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    jpegs = [_jpeg(random) for _ in range(8)]
    label = json.dumps({"labels": LABELS}).encode()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for image in range(images):
                for field, data in (("jpg", jpegs[image % len(jpegs)]), ("json", label)):
                    member = tarfile.TarInfo(f"{shard:05d}{image:04d}.{field}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def markdown(results: dict[str, dict[str, float]]) -> str:
    """The table."""
    rows = [
        [design, f"{figures['images_per_s']:.0f}", f"{figures['busy']:.2f}"]
        for design, figures in results.items()
    ]
    return table(["executor, workers x shards in flight", "images/s", "busy"], rows)


def _jpeg(random: np.random.Generator) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8))
    encoded = io.BytesIO()
    coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def _run(data: Path, output: Path, engine: ExecutionConfig) -> dict[str, float]:
    log = output / LOG
    log.mkdir(parents=True)
    config = AnnotateConfig(input=str(data), output=str(output), engine=engine)
    make_worker = functools.partial(Worker, make_explainer=functools.partial(_sleeper, log))
    shards = find_shards(config.patterns)
    ledger = Ledger(config.output)
    ledger.open(config.identity(), config.public(), [])
    with closing(make_executor(config, ledger, make_worker)) as executor:
        do_all(config, ledger, shards, executor, lambda work: work())
    return _busy(log, engine.workers)


def _sleeper(log: Path, config: AnnotateConfig) -> Sleeper:
    return Sleeper(log)


def _busy(log: Path, workers: int) -> dict[str, float]:
    """Over the span from the first sleep to the last."""
    rows = [line.split() for path in log.iterdir() for line in path.read_text().splitlines()]
    sleeps = [(float(start), float(end)) for start, end in rows]
    span = max(end for _, end in sleeps) - min(start for start, _ in sleeps)
    asleep = sum(end - start for start, end in sleeps)
    return {"images_per_s": asleep / SECONDS_PER_IMAGE / span, "busy": asleep / span / workers}
