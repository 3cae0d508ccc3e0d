"""What the host does for an image, from tar to commit, in milliseconds of a core."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from benchmarks.engine.sleeper import GRAIN, Pace, Sleeper, make_shards, real_maps
from benchmarks.timing import Target, at_least_one, table, target_table
from pipeline import storage
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.images import Picture
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.reader import least_for
from pipeline.inputs.samples import Sample, image_bytes
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import read_samples
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import make_commit
from pipeline.outputs.tables import ShardTables
from pipeline.run.annotator import Annotator
from pipeline.run.queue import Trial

Results = dict[str, Any]
Decode = Literal["full", "scaled"]
BLOCK = 1 << 20
"""Bytes that are read at once, where nothing is done with them."""
SIZES = ((640, 480), (4000, 3000))
PROMPTS = 5
DECODES: tuple[Decode, ...] = ("full", "scaled")
LIMITS = {
    (640, 480, "full"): 10.0,
    (640, 480, "scaled"): 10.0,
    (4000, 3000, "scaled"): 65.0,
}
"""Milliseconds of a core for an image with `PROMPTS` prompts, where there is a limit: presets for
photographs of 12 megapixels decode them at the scale that is needed."""
STEPS = (
    *("reading", "grouping", "prompts", "decoding", "squash", "model input", "masks", "rows"),
    *("Parquet", "commit"),
)
GPUS = {
    "ViT-bigG-14": (5.4, "at 65 % of an H100's peak"),
    "ViT-L-14": (0.9, "at 65 % of an H100's peak"),
    "ViT-B-16": (0.6, "as measured on an H100"),
}
"""Milliseconds that an image with `PROMPTS` prompts takes a GPU, and where they are from."""


def measure(
    images: int,
    large: int,
    rounds: int,
    prompts: Sequence[int],
    decodes: Sequence[Decode] = DECODES,
    batch_size: int = 16,
    grain: int = GRAIN,
) -> Results:
    """Core-milliseconds per image and step.

    Args:
        images: of 640 x 480 in a shard.
        large: of 4000 x 3000 in a shard.
        rounds: how often each shard is done; medians are taken.
        prompts: of every image, one profile for each number.
        decodes: how JPEGs are decoded, one profile for each way; see `AnnotateConfig.decode`.
        batch_size: images that are made into masks together.
        grain: of the pictures, in pixels; a coarse one makes small files.
    """
    at_least_one(images=images, large=large, rounds=rounds, grain=grain)
    torch.set_num_threads(1)
    maps = real_maps()
    rows = []
    with TemporaryDirectory() as folder:
        for size, count in zip(SIZES, (images, large), strict=True):
            for wanted in prompts:
                data = Path(folder, f"{size[0]}-{wanted}")
                make_shards(data, 1, count, size, wanted, grain)
                (shard,) = data.iterdir()
                for decode in decodes:
                    config = AnnotateConfig(
                        input=str(data),
                        output=f"{data}-{decode}",
                        decode=decode,
                        engine=ExecutionConfig(executor="local", threads=1, batch_size=batch_size),
                    )
                    profile = _Profile(config, Pace(0.0, maps))
                    turns = [profile.turn() for _ in range(rounds)]
                    steps = {step: median(turn[step] for turn in turns) for step in turns[0]}
                    about = {"size": list(size), "prompts": wanted, "decode": decode}
                    kilobytes = shard.stat().st_size / count / 1000
                    rows.append({**about, "images": count, "kilobytes": kilobytes, "ms": steps})
    return {"batch_size": batch_size, "rows": rows}


class _Profile:
    """One shard, done step by step in one thread, and as a whole by a worker's threads."""

    def __init__(self, config: AnnotateConfig, pace: Pace) -> None:
        self._config = config
        (self._shard,) = find_shards(config.patterns)
        self._ledger = Ledger(config.output)
        self._ledger.open(config.identity(), config.public(), [])
        self._worker = pace.worker()(config)
        self._explain = Sleeper(pace)
        self._used: defaultdict[str, float] = defaultdict(float)

    def turn(self) -> dict[str, float]:
        """Milliseconds of a core for an image, by step; `together` for the worker's threads."""
        self._used.clear()
        count = self._by_steps()
        used = {step: self._used[step] for step in STEPS}
        started = time.process_time()
        outcome = self._worker.try_shard(Trial(self._shard), lambda more: None)
        used["together"] = time.process_time() - started
        if outcome.error:
            raise RuntimeError(f"{self._shard.uri}: {outcome.error}")
        used["in all"] = sum(used[step] for step in STEPS)
        return {step: 1000 * seconds / count for step, seconds in used.items()}

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self._used[name] += time.process_time() - started

    def _by_steps(self) -> int:
        config, shard = self._config, self._shard
        with self._step("reading"), storage.open_read(shard.location) as stream:
            while stream.read(BLOCK):
                pass
        with self._step("grouping"), storage.open_read(shard.location) as stream:
            raws = list(read_samples(stream, config.max_sample_bytes))
        self._used["grouping"] -= self._used["reading"]
        prompts_of, samples = PromptReader(config.prompts), []
        least = least_for(self._explain.squash, config.enough)
        for raw in raws:
            with self._step("prompts"):
                wanted = prompts_of(raw.fields)
            with self._step("decoding"):
                picture = Picture(image_bytes(raw), config.max_pixels)
                pixels = picture.pixels(least)
            with self._step("squash"):
                fitted = self._explain.squash(pixels)
            size = picture.height, picture.width
            samples.append(Sample(raw.index, raw.key, *size, fitted, wanted))
        tables = ShardTables(shard.name, config, self._explain.heat_order)
        annotator = Annotator(self._explain, config.mask)
        at_once = config.engine.batch_size
        for start in range(0, len(samples), at_once):
            batch = samples[start : start + at_once]
            with self._step("model input"):
                self._explain.model_input(batch)
            with self._step("masks"):
                annotated = annotator.annotate(batch)
            with self._step("rows"):
                for sample, found in zip(batch, annotated, strict=True):
                    tables.add(sample, found)
        with self._step("Parquet"):
            files = tables.files()
        with self._step("commit"):
            commit = make_commit(
                shard, self._ledger.fingerprint, tables.counts(), files, seconds=0.0, attempt=1
            )
            self._ledger.commit(commit, files)
        return len(samples)


def targets(results: Results) -> list[Target]:
    """What an image with five prompts may cost, where there is a limit."""
    return [
        Target(f"{_name(row)}: core-ms per image", row["ms"]["together"], limit, at_least=False)
        for row in results["rows"]
        if row["prompts"] == PROMPTS
        if (limit := LIMITS.get((*row["size"], row["decode"])))
    ]


def markdown(results: Results) -> str:
    """The profile, and how many cores a GPU needs by it."""
    rows = results["rows"]
    steps = (*STEPS, "in all", "together")
    profile = [[step, *(f"{row['ms'][step]:.2f}" for row in rows)] for step in steps]
    files = ["kB per image", *(f"{row['kilobytes']:.0f}" for row in rows)]
    text = table(["core-ms per image", *map(_name, rows)], [files, *profile])
    full = [row for row in rows if row["prompts"] == PROMPTS]
    if not full:
        return text
    cores = [
        [model, f"{ms:g} ms, {source}", *(f"{row['ms']['together'] / ms:.1f}" for row in full)]
        for model, (ms, source) in GPUS.items()
    ]
    header = ["cores for one GPU", "per image", *map(_name, full)]
    checks = target_table([target.as_dict() for target in targets(results)])
    return f"{text}\n\n{table(header, cores)}\n\n{checks}"


def _name(row: dict[str, Any]) -> str:
    width, height = row["size"]
    return f"{width} x {height}, {row['prompts']} prompts, {row['decode']}"
