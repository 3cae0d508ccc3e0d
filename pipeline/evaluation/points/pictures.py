"""Which images of a scored run are shown, and the masks to show them with.

The counts keep the masks that were scored of a few images per shard: the worst and the best of all
shards are among the worst and the best of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from pipeline.outputs.masks import decode, encode
from pipeline.outputs.schema import SEGMENTATION

EACH = 6
"""Images shown of the worst, and of the best."""
PICTURE = pa.struct([("shard", pa.string()), ("segmentation", SEGMENTATION)])
"""The mask of a pair that may be shown, and the shard that has the image."""

Masks = dict[str, dict[str, np.ndarray]]
"""Image → label → mask [height, width]."""


def worst_and_best(ious: Mapping[str, float]) -> dict[str, float]:
    """The images at both ends, with their IoU, the worst first; equals by their ids."""
    order = sorted(ious, key=lambda image: (ious[image], image))
    return {image: ious[image] for image in (*order[:EACH], *order[-EACH:])}


def picture(shard: str, mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    """A value of `PICTURE`, of pixels."""
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


def kept_masks(table: pa.Table, wanted: Set[str]) -> tuple[Masks, set[str]]:
    """The masks that the counts keep of some images, and the names of the shards that have these.

    Args:
        table: counts with a column of `PICTURE`.
        wanted: the images.
    """
    among = pc.is_in(table["image"], value_set=pa.array(sorted(wanted), pa.string()))
    masks: Masks = {}
    shards = set()
    for row in table.select(["image", "label", "picture"]).filter(among).to_pylist():
        if row["picture"] is not None:
            of_image = masks.setdefault(row["image"], {})
            of_image[row["label"]] = decode(row["picture"]["segmentation"])
            shards.add(row["picture"]["shard"])
    return masks, shards
