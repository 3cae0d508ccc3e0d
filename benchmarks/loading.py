"""What it costs to join images with their masks, against reading and decoding the images alone."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Action, Target, take_turns, target_table
from pipeline import storage
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.demo.bundle import write_tar
from pipeline.demo.run import SHARDS
from pipeline.inputs.images import decode
from pipeline.inputs.samples import image_bytes
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import RawSample, read_samples
from pipeline.loading import MaskDataset
from pipeline.outputs.selection import SelectionConfig
from pipeline.run.annotation import annotate

SIZE = (640, 480)
GRAIN = 16.0
"""Grey levels: makes files of 160 kB, as those of COCO's photographs are."""
TIMES = 3
"""So often every scene comes, each time with other grain: shards usually have a thousand images."""
MASKS = 3
LEAST = {"rle": 0.90, "masks": 0.70}
NO_LIMIT = 1 << 62


def measure(rounds: int) -> dict[str, Any]:
    """Images per second of the demo's scenes at 640×480, in one process and one thread.

    Args:
        rounds: in each, images alone, with run lengths, and with decoded masks take turns.
    """
    with TemporaryDirectory() as folder:
        shards, output = Path(folder, "shards"), str(Path(folder, "out"))
        shards.mkdir()
        count = _enlarge(shards)
        engine = ExecutionConfig(executor="local")
        annotate(AnnotateConfig(input=str(shards), output=output, engine=engine))
        select = SelectionConfig(top_k=MASKS)
        lengths = MaskDataset(str(shards), output, select=select, decode=False)
        masks = MaskDataset(str(shards), output, select=select)
        torch.set_num_threads(1)
        actions: dict[str, Action] = {
            "images": lambda: _per_second(_images(shards), count),
            "rle": lambda: _per_second(lengths, count),
            "masks": lambda: _per_second(masks, count),
        }
        turns = take_turns(actions, rounds)
    pairs = {
        name: median(
            with_masks["images_per_second"] / alone["images_per_second"]
            for with_masks, alone in zip(turns[name], turns["images"], strict=True)
        )
        for name in LEAST
    }
    names = {"rle": "with run lengths", "masks": f"with {MASKS} decoded masks"}
    return {
        "images_per_second": median(turn["images_per_second"] for turn in turns["images"]),
        "targets": [
            Target(f"{names[name]}, of images alone", pairs[name], least, at_least=True).as_dict()
            for name, least in LEAST.items()
        ],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """The table."""
    pace = results["images_per_second"]
    return f"Images alone: {pace:.0f} per second.\n\n{target_table(results['targets'])}"


def _enlarge(folder: Path) -> int:
    """Write the demo's scenes as a shard of photographs, by size; how many there are."""
    samples: list[RawSample] = []
    for shard in find_shards([str(SHARDS)]):
        with storage.open_read(shard.location) as stream:
            samples += read_samples(stream)
    draw = np.random.default_rng(0)
    members = (
        (f"{place}.{name}", data)
        for place, raw in enumerate(samples * TIMES)
        for name, data in _members(raw, draw)
    )
    write_tar(folder / "scenes.tar", members)
    return len(samples) * TIMES


def _members(raw: RawSample, draw: np.random.Generator) -> Iterable[tuple[str, bytes]]:
    """An image with the grain that it takes to decode as slowly as a photograph, and its labels."""
    encoded = io.BytesIO()
    with Image.open(io.BytesIO(image_bytes(raw))) as image:
        pixels = np.asarray(image.resize(SIZE), dtype=np.float32)
    grain = draw.normal(0, GRAIN, (*pixels.shape[:2], 1))
    grained = (pixels + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(grained).save(encoded, "JPEG", quality=90)
    labels = json.loads(raw.fields["json"])["labels"]
    missing = [name for name in ("dog", "cat", "star") if name not in labels]
    labels = [*labels, *missing][:MASKS]
    yield "jpg", encoded.getvalue()
    yield "json", json.dumps({"labels": labels}).encode()


def _images(folder: Path) -> Iterable[torch.Tensor]:
    for shard in find_shards([str(folder)]):
        with storage.open_read(shard.location) as stream:
            for raw in read_samples(stream):
                yield decode(image_bytes(raw), NO_LIMIT)


def _per_second(samples: Iterable[Any], count: int) -> dict[str, float]:
    started = time.perf_counter()
    assert sum(1 for _ in samples) == count
    return {"images_per_second": count / (time.perf_counter() - started)}
