"""The points stage on a synthetic file: time and memory to read and join it, then look-ups."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from benchmarks.memory import peak_bytes

LABELS = 5000
LABELS_PER_IMAGE = 5
MASK_SIZE = (768, 1024)
MASKS, POINTS_PER_MASK = 200, 10


def measure(rows: int, images: int) -> dict[str, Any]:
    """Write the file, then read and join it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_points(Path(folder), rows, images)
        size = Path(folder, "points.csv").stat().st_size
        # A fresh interpreter: its peak of memory is the stage's alone.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            stage = pool.apply(read_and_join, (folder,))
    return {"rows": rows, "images": images, "bytes": size, **stage, **look_up()}


def write_points(folder: Path, rows: int, images: int, seed: int = 0) -> None:
    """A point file with the layout and the flaws of the real ones, and its descriptions.

    Of the rows, 10 % are unsure, 2 % repeat the one before, 0.5 % contradict it, and some lie
    outside their image or have a label that nothing names.
    """
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(images, size=rows))
    label = (image * 7 + rng.integers(LABELS_PER_IMAGE, size=rows)) % LABELS
    x, y = rng.random(rows).round(6), rng.random(rows).round(6)
    answer = rng.choice(3, size=rows, p=(0.45, 0.45, 0.10))
    chance = rng.random(rows)
    again = np.flatnonzero(chance[1:] < 0.025) + 1
    for column in (image, label, x, y, answer):
        column[again] = column[again - 1]
    opposite = again[chance[again] < 0.005]
    answer[opposite] = np.where(answer[opposite] < 2, 1 - answer[opposite], 2)
    x[chance > 0.9999] = 1.5
    label[chance > 0.99995] = LABELS
    table = pa.table(
        {
            "ImageId": _take([f"{i:016x}" for i in range(images)], image),
            "X": x,
            "Y": y,
            "Label": _take([f"/m/{i:05x}" for i in range(LABELS + 1)], label),
            "EstimatedYesNo": _take(["yes", "no", "unsure"], answer),
            "Source": _take(["ih"], np.zeros(rows, dtype=np.int64)),
            **{name: np.zeros(rows, dtype=np.int8) for name in ("YesVotes", "NoVotes")},
            "UnsureVotes": np.zeros(rows, dtype=np.int8),
            "TextLabel": _take([""], np.zeros(rows, dtype=np.int64)),
        }
    )
    csv.write_csv(table, folder / "points.csv", csv.WriteOptions(quoting_style="none"))
    names = {
        "LabelName": [f"/m/{i:05x}" for i in range(LABELS)],
        "DisplayName": [f"thing {i}" for i in range(LABELS)],
    }
    csv.write_csv(pa.table(names), folder / "descriptions.csv")


def read_and_join(folder: str) -> dict[str, Any]:
    """Read, clean, deduplicate and group the file, then find the pairs of every image."""
    from pipeline.evaluation.points.labels import read_labels
    from pipeline.evaluation.points.pairs import LabelledPairs

    before = peak_bytes()
    started = time.perf_counter()
    pairs, _ = read_labels(f"{folder}/points.csv", f"{folder}/descriptions.csv")
    read = time.perf_counter()
    shared = LabelledPairs.from_parquet(pairs.to_parquet())
    found = sum(
        len(of_image)
        for first in range(0, len(shared.images), 1000)  # a shard's worth of keys
        for of_image in shared.of_images(shared.images[first : first + 1000]).values()
    )
    joined = time.perf_counter()
    return {
        "read_seconds": read - started,
        "join_seconds": joined - read,
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "pairs": found,
    }


def look_up() -> dict[str, float]:
    """Seconds per mask for looking points up in run lengths, and for decoding the mask."""
    from PIL import Image

    from pipeline.outputs.masks import decode, encode
    from pipeline.outputs.run_lengths import pixels_set

    rng = np.random.default_rng(0)
    height, width = MASK_SIZE
    masks = []
    for _ in range(MASKS):
        coarse = Image.fromarray(rng.integers(0, 256, (14, 14), dtype=np.uint8))
        heat = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
        masks += encode(np.asfortranarray((heat > 128)[..., None], dtype=np.uint8))
    rows, columns = rng.integers(height, size=10), rng.integers(width, size=10)
    started = time.perf_counter()
    looked = [pixels_set(mask, rows, columns) for mask in masks]
    middle = time.perf_counter()
    decoded = [decode(mask)[rows, columns] for mask in masks]
    ended = time.perf_counter()
    assert all((a == b).all() for a, b in zip(looked, decoded, strict=True))
    return {
        "lookup_seconds_per_mask": (middle - started) / MASKS,
        "decode_seconds_per_mask": (ended - middle) / MASKS,
    }


def markdown(results: dict[str, Any]) -> str:
    """The figures as sentences."""
    seconds = results["read_seconds"] + results["join_seconds"]
    return (
        f"{results['rows']:,} point rows of {results['images']:,} images "
        f"({results['bytes'] / 1e6:.0f} MB): {seconds:.1f} s, {results['peak_bytes'] / 1e9:.2f} GB "
        f"at the most ({results['peak_bytes_before'] / 1e9:.2f} GB of it imports)\n"
        f"  read, clean, deduplicate, group {results['read_seconds']:.1f} s; "
        f"hand over and join {results['join_seconds']:.1f} s; {results['pairs']:,} pairs\n"
        f"{POINTS_PER_MASK} points on a {MASK_SIZE[1]}x{MASK_SIZE[0]} mask: "
        f"{1e3 * results['lookup_seconds_per_mask']:.2f} ms in its run lengths, "
        f"{1e3 * results['decode_seconds_per_mask']:.2f} ms by decoding it"
    )


def _take(names: list[str], codes: np.ndarray) -> pa.Array:
    """The names at some positions, as plain strings."""
    indices = pa.array(codes.astype(np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array(names)).cast(pa.string())
