"""From the bytes of a photograph to a model's square: whole, at the scale needed, and by others."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from benchmarks.timing import Action, Target, interleaved, table, target_table
from pipeline import storage
from pipeline.config import DECODE_ENOUGH
from pipeline.inputs.images import Picture, squash
from pipeline.inputs.samples import image_bytes
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import read_samples

Results = dict[str, Any]
SIZES = ((640, 480), (4000, 3000))
JPEG_QUALITY = 90
NO_LIMIT = 1 << 62
LEAST = {(640, 480): 0.95, (4000, 3000): 2.2}
"""Rate of the scaled way, in that of torchvision."""


def ours(data: bytes, side: int, least: int | None) -> Tensor:
    """As the pipeline's reader does it."""
    return squash(Picture(data, NO_LIMIT).pixels(least), side)


def by_torchvision(data: bytes, side: int) -> Tensor:
    """Decode with torchvision, resize."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
        pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    resized: Tensor = transforms.resize(pixels, [side, side], InterpolationMode.BICUBIC)
    return resized


def by_pillow(data: bytes, side: int) -> Tensor:
    """Decode with `draft` at twice the size that is needed, resize."""
    with Image.open(BytesIO(data)) as image:
        image.draft("RGB", (2 * side, 2 * side))
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def measure(
    photographs: str,
    count: int,
    rounds: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
    side: int = 224,
) -> Results:
    """Milliseconds per image.

    Args:
        photographs: shards with some, which are enlarged.
        count: how many are taken.
        rounds: how often each way is measured, in turns.
        sizes: (width, height) that they are enlarged to.
        side: of the square that they become.
    """
    torch.set_num_threads(1)
    ways: dict[str, Callable[[bytes], Tensor]] = {
        "full": lambda data: ours(data, side, None),
        "scaled": lambda data: ours(data, side, round(DECODE_ENOUGH * side)),
        "torchvision": lambda data: by_torchvision(data, side),
        "PIL with draft": lambda data: by_pillow(data, side),
    }
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for size in sizes:
        encoded = _enlarged(photographs, count, size)
        actions = {name: _action(way, encoded) for name, way in ways.items()}
        for action in actions.values():
            action()
        took = interleaved(actions, rounds)
        ms = {name: took[name]["ms"] for name in ways}
        kilobytes = sum(map(len, encoded)) / len(encoded) / 1000
        rows.append({"size": list(size), "kilobytes": kilobytes, **ms})
        if size in LEAST:
            name = f"{size[0]} x {size[1]}, rate of scaled / torchvision"
            ratio = ms["torchvision"] / ms["scaled"]
            targets.append(Target(name, ratio, LEAST[size], at_least=True).as_dict())
    return {
        "side": side,
        "photographs": count,
        "ways": list(ways),
        "rows": rows,
        "targets": targets,
    }


def _enlarged(photographs: str, count: int, size: tuple[int, int]) -> list[bytes]:
    made: list[bytes] = []
    for shard in find_shards([photographs], flag="--photographs"):
        with storage.open_read(shard.location) as stream:
            for raw in islice(read_samples(stream), count - len(made)):
                encoded = BytesIO()
                with Image.open(BytesIO(image_bytes(raw))) as image:
                    image.convert("RGB").resize(size).save(encoded, "JPEG", quality=JPEG_QUALITY)
                made.append(encoded.getvalue())
    return made


def _action(way: Callable[[bytes], Tensor], encoded: Sequence[bytes]) -> Action:
    def run() -> dict[str, float]:
        started = time.perf_counter()
        for data in encoded:
            way(data)
        return {"ms": 1000 * (time.perf_counter() - started) / len(encoded)}

    return run


def markdown(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    ways = results["ways"]
    rows = [
        [
            f"{row['size'][0]} x {row['size'][1]}",
            f"{row['kilobytes']:.0f} kB",
            *(f"{row[name]:.2f} ms ({row['torchvision'] / row[name]:.2f})" for name in ways),
        ]
        for row in results["rows"]
    ]
    about = (
        f"{results['photographs']} photographs, JPEG, to {results['side']} x {results['side']} on "
        "one core; per image, and in brackets the rate in that of torchvision"
    )
    header = ["image", "file", *ways]
    return f"{about}\n\n{table(header, rows)}\n\n{target_table(results['targets'])}"
