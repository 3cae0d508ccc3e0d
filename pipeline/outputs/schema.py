"""The Parquet files of a run: one row per mask, and one row per input sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import fingerprint
from pipeline.storage import digests

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
    return bool(json.loads((table.schema.metadata or {}).get(b"normalise_first", b"false")))


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


def to_parquet(
    rows: Sequence[Mapping[str, Any]], schema: pa.Schema, metadata: Mapping[str, Any]
) -> bytes:
    """A complete Parquet file.

    Args:
        rows: one mapping per row with every column of `schema`.
        schema: `ANNOTATIONS` or `IMAGES`.
        metadata: for the footer; values are stored as JSON.
    """
    encoded = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata(encoded))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
