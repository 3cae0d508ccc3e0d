"""The Parquet files of a run: one row per mask, and one row per input sample."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.config import fingerprint
from pipeline.storage import digests, parquet

SEGMENTATION = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
WITHOUT_MASK = pa.list_(pa.struct([("reason", pa.string()), ("count", pa.int32())]))

ANNOTATIONS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sample_index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("prompt_index", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("category_id", pa.int32()),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("raw_max", pa.float32(), nullable=False),
        pa.field("heat_mean", pa.float32(), nullable=False),
        pa.field("threshold", pa.float32(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("bbox", pa.list_(pa.float32(), 4), nullable=False),
        pa.field("segmentation", SEGMENTATION, nullable=False),
        pa.field("heat", pa.binary()),
        pa.field("heat_shape", pa.list_(pa.int32(), 2)),
    ]
)
"""One row per mask, sorted by (sample_index, prompt_index)."""

IMAGES = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sample_index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("prompts", pa.int32(), nullable=False),
        pa.field("prompts_cut", pa.int32(), nullable=False),
        pa.field("masks", pa.int32(), nullable=False),
        pa.field("without_mask", WITHOUT_MASK, nullable=False),
    ]
)
"""One row per input sample: annotated, empty (nothing to look for, or nothing found), rejected."""


def is_normalised_first(table: pa.Table) -> bool:
    """Whether the stored heat of a table is normalised for good, before it is upsampled."""
    return bool(parquet.footer_value(table, "normalise_first", default=False))


def image_id(shard: str, key: str) -> int:
    """A positive 63-bit number that is the same in every run over the same shard."""
    digest = digests.of_text(f"{shard}\0{key}", digits=16)
    return int(digest, base=16) % (2**63 - 1) + 1


def footer(results: dict[str, Any]) -> dict[str, Any]:
    """What a file says about its making: only what changes results, so that runs compare equal.

    `normalise_first` says whether stored heat is normalised for good, before it is upsampled.
    """
    return {
        "schema_version": results["schema_version"],
        "fingerprint": fingerprint(results),
        "config": results,
        "normalise_first": False,
    }
