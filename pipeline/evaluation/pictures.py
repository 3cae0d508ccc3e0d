"""Which images of a scored run are shown, and the masks to show them with.

Masks of heatmaps are not written anywhere, so that the counts keep those of a few images per shard:
the worst and the best of all shards are among the worst and the best of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from pipeline import storage
from pipeline.evaluation.predictions import image_id_of
from pipeline.ledger import Ledger
from pipeline.masks import decode, encode
from pipeline.schema import SEGMENTATION

EACH = 6
"""Images shown of the worst, and of the best."""
PICTURE = pa.struct([("shard", pa.string()), ("segmentation", SEGMENTATION)])
"""The mask of a pair that may be shown, and the shard that has the image."""

Masks = dict[str, dict[str, np.ndarray]]
"""Image → name of a class in lower case → mask [height, width]."""


def worst_and_best(ious: Mapping[str, float]) -> dict[str, float]:
    """The images at both ends, with their IoU, the worst first; equals by their ids."""
    order = sorted(ious, key=lambda image: (ious[image], image))
    return {image: ious[image] for image in (*order[:EACH], *order[-EACH:])}


def picture(shard: str, mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    """A value of `PICTURE`."""
    (segmentation,) = encode(np.asfortranarray(mask[..., None], dtype=np.uint8))
    return {"shard": shard, "segmentation": segmentation}


def keep_pictures(rows: Sequence[dict[str, Any]]) -> None:
    """Of the counts of a shard, drop the pictures of images that cannot be shown."""
    hits: Counter[str] = Counter()
    union: Counter[str] = Counter()
    for row in rows:
        hits[row["image"]] += row["tp"]
        union[row["image"]] += row["yes"] + row["fp"]
    kept = worst_and_best({image: hits[image] / union[image] for image in union})
    for row in rows:
        if row["image"] not in kept:
            row["picture"] = None


def kept_masks(
    table: pa.Table, wanted: Set[str], names: Mapping[str, str]
) -> tuple[Masks, set[str]]:
    """The masks that the counts keep of some images, and the names of the shards that have these.

    Args:
        table: counts with a column of `PICTURE`.
        wanted: the images.
        names: label → name of the class.
    """
    among = pc.is_in(table["image"], value_set=pa.array(sorted(wanted), pa.string()))
    masks: Masks = {}
    shards = set()
    for row in table.select(["image", "label", "picture"]).filter(among).to_pylist():
        if row["picture"] is not None:
            of_image = masks.setdefault(row["image"], {})
            of_image[names[row["label"]]] = decode(row["picture"]["segmentation"])
            shards.add(row["picture"]["shard"])
    return masks, shards


def written_masks(predictions: str, wanted: Set[str]) -> Masks:
    """The masks that an annotation run has written of some images."""
    masks: Masks = {}
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
            of_image.setdefault((row["category"] or "").lower(), decode(row["segmentation"]))
    return masks
