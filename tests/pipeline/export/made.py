"""Runs to export, made by hand."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from legrad import HeatOrder
from pipeline import storage
from pipeline.config import AnnotateConfig
from pipeline.inputs.classes import stable_id
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import encode, measure
from pipeline.outputs.records import make_commit
from pipeline.outputs.schema import image_id, to_files
from tests.pipeline.conftest import tar


@dataclass
class Made:
    """An image; a mask is (category, score, pixels)."""

    file_name: str | None
    size: tuple[int, int]  # height, width
    masks: list[tuple[str | None, float, np.ndarray]] = field(default_factory=list)
    status: str = ""
    key: str = ""
    id: int = 0

    def __post_init__(self) -> None:
        if not self.key:
            folder, slash, base = (self.file_name or "").rpartition("/")
            self.key = folder + slash + base.partition(".")[0]

    def jpeg(self) -> bytes:
        encoded = io.BytesIO()
        Image.new("RGB", self.size[::-1], (9, 99, 200)).save(encoded, "JPEG")
        return encoded.getvalue()


def box(size: tuple[int, int], *boxes: tuple[int, int, int, int], hole: Any = ()) -> np.ndarray:
    """Boxes of (top, left, bottom, right), without those of the hole."""
    pixels = np.zeros(size, dtype=bool)
    for value, places in ((True, boxes), (False, hole)):
        for top, left, bottom, right in places:
            pixels[top:bottom, left:right] = value
    return pixels


SIZE = (30, 40)
HARD = [
    Made(
        "sub/dir.v2/im.jpg",
        SIZE,
        [
            ("dog", 0.25, box(SIZE, (2, 3, 20, 20), hole=[(6, 7, 12, 13)])),
            ("cat", 0.5, box(SIZE, (0, 0, 4, 4), (20, 30, 30, 40))),
            ("dog", 0.125, box(SIZE, (0, 0, 30, 40))),
        ],
    ),
    Made("sub/dir.v2/empty.jpg", (12, 20)),
    Made("bad.jpg", (1, 1), status="rejected"),
    Made("two words.jpg", (35, 25), [("a zebra", 0.75, box((35, 25), (34, 24, 35, 25)))]),
]
"""A hole, two parts, overlaps, a sub-folder with a dot, an image without masks, a rejected one."""


def make_run(
    output: str,
    *shards: Sequence[Made],
    images: Path | None = None,
    calibrated: bool = False,
    model: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a run whose shards have these images; returns their locations.

    Args:
        output: where to.
        shards: images of each.
        images: folder for the tars.
        calibrated: every mask is half as likely as its score is high.
        model: settings of the run's model that differ from the usual ones.
    """
    config = AnnotateConfig()
    results, ledger = config.identity(), Ledger(output)
    results["model"] |= model or {}
    if calibrated:
        results["prompts"]["calibration"] = "digest"
    ledger.open(results, config.public(), [])
    locations = []
    for number, made in enumerate(shards):
        location = str((images or Path("/nowhere")) / f"part-{number}.tar")
        if images:
            members = [(one.file_name, one.jpeg()) for one in made]
            storage.write_bytes(location, tar(members))
        locations.append(location)
        shard = Shard(location, storage.normalise(location), 1)
        rows = [_image(shard.name, index, one) for index, one in enumerate(made)]
        masks = [row for index, one in enumerate(made) for row in _masks(shard.name, index, one)]
        if calibrated:
            masks = [row | {"probability": row["score"] / 2} for row in masks]
        files = to_files(shard.name, masks, rows, results, HeatOrder.UPSAMPLE_NORMALISE)
        counts: Any = dict(
            **dict(samples=len(made), statuses={}, rejects={}, prompts=9, prompts_cut=0),
            masks=len(masks),
        )
        names = sorted({name for one in made for name, _, _ in one.masks if name})
        record = make_commit(
            shard, ledger.fingerprint, counts, files, seconds=1.0, attempt=1, names=names
        )
        ledger.commit(record, files)
    ledger.write_index(ledger.commits())
    return locations


def _identity(shard: str, index: int, made: Made) -> dict[str, Any]:
    number = made.id or image_id(shard, made.key)
    return {"shard": shard, "sample_index": index, "key": made.key, "image_id": number}


def _image(shard: str, index: int, made: Made) -> dict[str, Any]:
    status = made.status or ("annotated" if made.masks else "empty")
    height, width = (None, None) if status == "rejected" else made.size
    return _identity(shard, index, made) | {
        **dict(file_name=made.file_name, height=height, width=width, status=status),
        **dict(reason=None, detail=None, prompts=9, prompts_cut=0, masks=len(made.masks)),
        "without_mask": [],
    }


def _masks(shard: str, index: int, made: Made) -> Iterable[dict[str, Any]]:
    for prompt, (name, score, pixels) in enumerate(made.masks):
        (rle,) = encode(np.asfortranarray(pixels[..., None], dtype=np.uint8))
        area, bbox = measure(rle)
        heat = np.asarray(Image.fromarray(pixels.astype(np.uint8) * 255).resize((4, 4)))
        yield _identity(shard, index, made) | {
            **dict(height=made.size[0], width=made.size[1], prompt_index=prompt, prompt="a thing"),
            **dict(category=name, category_id=stable_id(name) if name else None, score=score),
            **dict(raw_max=1.0, heat_mean=0.75, threshold=0.5, area=area, bbox=bbox),
            **dict(segmentation=rle, heat=heat.tobytes(), heat_shape=[4, 4]),
        }
