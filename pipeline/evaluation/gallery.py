"""The worst and the best images of a run, with the points drawn on the masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.evaluation import report
from pipeline.evaluation.pairs import LabelledPairs, PairPoints
from pipeline.evaluation.point_scores import PairCounts
from pipeline.evaluation.predictions import image_id_of
from pipeline.images import decode as decode_image
from pipeline.ledger import Ledger
from pipeline.masks import decode as decode_mask
from pipeline.rejects import Reject
from pipeline.samples import image_bytes
from pipeline.shards import find_shards
from pipeline.tars import read_samples

EACH = 6
"""Images drawn of the worst, and of the best."""
CLASSES = 4
"""Classes drawn per image."""
LARGEST = 1 << 30
FADED = 0.3
YES, NO = "lime", "red"


class Picture(NamedTuple):
    """An image to draw: its IoU, its pixels [height, width, 3], its points and masks by class."""

    image: str
    iou: float
    pixels: np.ndarray
    pairs: list[PairPoints]
    masks: dict[str, np.ndarray]


def draw_gallery(
    output: str,
    predictions: str,
    images: list[str] | str,
    counts: PairCounts,
    pairs: LabelledPairs,
) -> None:
    """Write gallery.png: a row per image, a picture per class.

    Args:
        output: of the evaluation.
        predictions: output of the annotation run.
        images: shards that have the images.
        counts: of all pairs.
        pairs: the points.
    """
    ious = counts.image_ious()
    order = np.argsort(ious, kind="stable")
    chosen = dict.fromkeys([*order[:EACH].tolist(), *order[-EACH:].tolist()])
    wanted = {counts.images[i]: float(ious[i]) for i in chosen}
    masks = _masks(predictions, set(wanted))
    found = {p.image: p for p in _pictures(images, wanted, pairs, masks)}
    shown = [found[image] for image in wanted if image in found]
    if shown:
        _draw(output, shown)


def _pictures(
    images: list[str] | str,
    wanted: dict[str, float],
    pairs: LabelledPairs,
    masks: dict[str, dict[str, np.ndarray]],
) -> Iterator[Picture]:
    points = pairs.of_images(wanted)
    left = set(wanted)
    for shard in find_shards([images] if isinstance(images, str) else images):
        if not left:
            return
        with storage.open_read(shard.location) as stream:
            for raw in read_samples(stream):
                image = image_id_of(raw.key)
                if image not in left:
                    continue
                left.discard(image)
                try:
                    pixels = decode_image(image_bytes(raw), LARGEST).permute(1, 2, 0).numpy()
                except Reject as reject:  # it has a score, for its points were missed
                    print(f"not drawn: {image}: {reject}")
                    continue
                yield Picture(image, wanted[image], pixels, points[image], masks.get(image, {}))


def _masks(predictions: str, wanted: set[str]) -> dict[str, dict[str, np.ndarray]]:
    """Image → class name → mask, of the wanted images."""
    masks: dict[str, dict[str, np.ndarray]] = {}
    for commit in Ledger(predictions).commits():
        location = storage.join(predictions, "annotations", f"{commit.shard}.parquet")
        columns = ["key", "category", "segmentation"]
        table = pq.read_table(pa.BufferReader(storage.read_bytes(location)), columns=columns)
        ids = pa.array([image_id_of(key) for key in table["key"].to_pylist()], pa.string())
        rows: list[dict[str, Any]] = table.filter(
            pc.is_in(ids, value_set=pa.array(sorted(wanted)))
        ).to_pylist()
        for row in rows:
            of_image = masks.setdefault(image_id_of(row["key"]), {})
            of_image.setdefault((row["category"] or "").lower(), decode_mask(row["segmentation"]))
    return masks


def _draw(output: str, pictures: list[Picture]) -> None:
    drawn = report.figure(3.0 * CLASSES, 2.6 * len(pictures))
    grid = drawn.subplots(len(pictures), CLASSES, squeeze=False)
    for row, picture in zip(grid, pictures, strict=True):
        for axes in row:
            axes.axis("off")
        for axes, points in zip(row, picture.pairs, strict=False):
            _draw_class(axes, picture, points)
    report.save(output, "gallery.png", drawn)


def _draw_class(axes: Any, picture: Picture, points: PairPoints) -> None:
    """The image, faded outside the mask, with yes points in green and no points in red."""
    height, width = picture.pixels.shape[:2]
    names = (points.label.prompt, points.label.alias.lower())
    mask = next((picture.masks[n] for n in names if n in picture.masks), None)
    if mask is None or mask.shape != (height, width):
        mask = np.zeros((height, width), dtype=bool)
    faded = FADED * picture.pixels + (1 - FADED) * 255
    axes.imshow(np.where(mask[..., None], picture.pixels, faded).astype(np.uint8))
    for yes, colour in ((True, YES), (False, NO)):
        which = points.yes == yes
        axes.scatter(
            points.x[which] * width - 0.5,
            points.y[which] * height - 0.5,
            s=14,
            c=colour,
            edgecolors="black",
            linewidths=0.5,
        )
    axes.set_title(f"{picture.image}: {points.label.name} ({picture.iou:.2f})", fontsize=7)
