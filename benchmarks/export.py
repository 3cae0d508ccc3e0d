"""Exports of synthetic runs: pace and memory of COCO and of its check, pace of label maps."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak_bytes

RLE_BYTES = 600
MASKS_PER_IMAGE, IMAGES_PER_SHARD = 5, 2000
HEIGHT, WIDTH = 480, 640
SEMANTIC_IMAGES, SEMANTIC_SIZE = 1000, 512
DISTINCT = 64
"""Masks that are made; the others repeat them with other scores."""
CLASSES = 80


def measure(masks: int) -> dict[str, Any]:
    """Make the runs, then do every step in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run, small = f"{folder}/run", f"{folder}/small"
        write_run(run, masks // MASKS_PER_IMAGE)
        write_run(small, SEMANTIC_IMAGES)
        coco = alone(to_coco, run, f"{folder}/coco")
        size = Path(folder, "coco", "instances.json").stat().st_size
        check = alone(to_check, f"{folder}/coco/instances.json")
        semantic = alone(to_semantic, small, f"{folder}/semantic", core=True)
    return {
        "masks": masks // MASKS_PER_IMAGE * MASKS_PER_IMAGE,
        "bytes": size,
        "coco": coco,
        "validate": check,
        "semantic": semantic,
        "semantic_images": SEMANTIC_IMAGES,
    }


def alone(work: Callable[..., None], *arguments: str, core: bool = False) -> dict[str, float]:
    """Seconds, those of the processor, and peak of memory of some work, in a fresh interpreter.

    Args:
        work: is called with empty arguments first: what is imported is no part of the time.
        arguments: of it.
        core: on one core, however many threads it has.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (work, arguments, core))


def _timed(work: Callable[..., None], arguments: tuple[str, ...], core: bool) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    if core:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    work(*[""] * len(arguments))
    started, busy = time.perf_counter(), time.process_time()
    work(*arguments)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - busy,
        "peak_bytes": float(peak_bytes()),
    }


def to_coco(run: str, output: str) -> None:
    """Export COCO."""
    from pipeline.export.coco import Coco, CocoConfig
    from pipeline.export.run import export

    if run:
        export(CocoConfig(run, output, log_seconds=60.0), Coco)


def to_check(file: str) -> None:
    """Check a COCO file."""
    from pipeline.export.validate import ValidateConfig, validate

    if file:
        assert next(validate(ValidateConfig(file)), None) is None


def to_semantic(run: str, output: str) -> None:
    """Export label maps."""
    from pipeline.export.run import export
    from pipeline.export.semantic import Semantic, SemanticExportConfig

    if run:
        config = SemanticExportConfig(run, output, size=SEMANTIC_SIZE, log_seconds=60.0)
        export(config, Semantic)


def write_run(output: str, images: int) -> None:
    """A run without its model: masks of about `RLE_BYTES`, 14 x 14 heat, and no tars."""
    from legrad import HeatOrder
    from pipeline.config import AnnotateConfig
    from pipeline.inputs.classes import stable_id
    from pipeline.inputs.shards import Shard
    from pipeline.outputs.ledger import Ledger
    from pipeline.outputs.records import make_commit
    from pipeline.outputs.schema import image_id, to_files

    config, ledger = AnnotateConfig(), Ledger(output)
    results = config.identity()
    ledger.open(results, config.public(), [])
    rng, masks = np.random.default_rng(0), _masks()
    names = [f"thing {number:02}" for number in range(CLASSES)]
    for number, start in enumerate(range(0, images, IMAGES_PER_SHARD)):
        shard = Shard(f"/synthetic/{number:05}.tar", f"/synthetic/{number:05}.tar", 1)
        rows, pictures = [], []
        for index in range(min(IMAGES_PER_SHARD, images - start)):
            key = f"{start + index:09}"
            same = {"shard": shard.name, "sample_index": index, "key": key}
            same |= {"image_id": image_id(shard.name, key), "height": HEIGHT, "width": WIDTH}
            nothing: dict[str, Any] = dict(reason=None, detail=None, prompts_cut=0, without_mask=[])
            counts: dict[str, Any] = dict(
                status="annotated", prompts=MASKS_PER_IMAGE, masks=MASKS_PER_IMAGE
            )
            pictures.append(same | {"file_name": f"{key}.jpg"} | nothing | counts)
            for prompt in range(MASKS_PER_IMAGE):
                name = names[int(rng.integers(CLASSES))]
                found = {"prompt_index": prompt, "prompt": name, "category": name}
                found |= {"category_id": stable_id(name), "score": float(rng.random())}
                rows.append(same | found | masks[int(rng.integers(DISTINCT))])
        files = to_files(shard.name, rows, pictures, results, HeatOrder.UPSAMPLE_NORMALISE)
        totals: Any = dict(samples=len(pictures), statuses={}, rejects={}, prompts=len(rows))
        totals |= {"prompts_cut": 0, "masks": len(rows)}
        commit = make_commit(
            shard, ledger.fingerprint, totals, files, seconds=1.0, attempt=1, names=names
        )
        ledger.commit(commit, files)


def _masks() -> list[dict[str, Any]]:
    """Masks of blobs with ragged edges, as long as `RLE_BYTES`, and their heat."""
    from PIL import Image

    from pipeline.outputs.masks import encode, measure

    rng = np.random.default_rng(1)
    made: list[dict[str, Any]] = []
    while len(made) < DISTINCT:
        heat = rng.integers(0, 256, (14, 14), dtype=np.uint8)
        smooth = Image.fromarray(heat).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        level = 255.0
        for _ in range(40):
            level -= 5
            pixels = np.asarray(smooth) > level
            (rle,) = encode(np.asfortranarray(pixels[..., None], dtype=np.uint8))
            if len(rle["counts"]) >= RLE_BYTES:
                break
        area, bbox = measure(rle)
        fixed = dict(raw_max=1.0, heat_mean=0.75, threshold=0.5, heat_shape=[14, 14])
        shape = dict(area=area, bbox=bbox, segmentation=rle, heat=heat.tobytes())
        made.append(fixed | shape)
    return made


def markdown(results: dict[str, Any]) -> str:
    """The figures as sentences."""
    coco, check, semantic = (results[name] for name in ("coco", "validate", "semantic"))
    masks, images = results["masks"], results["semantic_images"]
    return (
        f"{masks:,} masks to COCO ({results['bytes'] / 1e6:.0f} MB): {_pace(masks, coco)} masks/s\n"
        f"validate: {_pace(masks, check)} masks/s\n"
        f"label maps of {WIDTH}x{HEIGHT} images with {MASKS_PER_IMAGE} masks, --size "
        f"{SEMANTIC_SIZE}, on one core: {_pace(images, semantic)} images/s"
    )


def _pace(count: int, work: dict[str, float]) -> str:
    """Both paces: a machine that others use too has less than a core for this."""
    return (
        f"{work['seconds']:.1f} s ({work['cpu_seconds']:.1f} s of one core), "
        f"{work['peak_bytes'] / 1e9:.2f} GB at the most, {count / work['seconds']:,.0f} "
        f"({count / work['cpu_seconds']:,.0f} per second of one core)"
    )
