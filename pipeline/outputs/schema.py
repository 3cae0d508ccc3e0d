"""The Parquet files of a run: one row per mask, and one row per input sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from legrad import HeatOrder
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

RAW_MIN = pa.field("raw_min", pa.float32(), nullable=False)
"""Before `raw_max` where maps are cut off at 0, which their heat alone does not tell."""
PROBABILITY = pa.field("probability", pa.float32(), nullable=False)
"""After `score` where a run has a calibration."""

IMAGES = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sample_index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("file_name", pa.string()),
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

ABSENT = pa.field(
    "absent",
    pa.list_(
        pa.struct(
            [("prompt_index", pa.int32()), ("category", pa.string()), ("score", pa.float32())]
        )
    ),
    nullable=False,
)
"""Last in `images/` where prompts may be absent: those that were, with their score."""


def calibrated(identity: Mapping[str, Any]) -> bool:
    """Whether the masks of a run with these settings have a probability."""
    return "calibration" in identity.get("prompts", {})


def annotation_schema(clips: bool, calibrated: bool = False) -> pa.Schema:
    """`ANNOTATIONS`, with the columns of what a run does beside.

    Args:
        clips: maps are cut off at 0, so that it takes more to make heat again.
        calibrated: masks have a probability.
    """
    schema = ANNOTATIONS
    if clips:
        schema = schema.insert(schema.get_field_index("raw_max"), RAW_MIN)
    if calibrated:
        schema = schema.insert(schema.get_field_index("score") + 1, PROBABILITY)
    return schema


def image_schema(filtered: bool) -> pa.Schema:
    """`IMAGES`, with the prompts that are absent where a run filters them."""
    return IMAGES.append(ABSENT) if filtered else IMAGES


def schemas(results: Mapping[str, Any], clips: bool) -> tuple[pa.Schema, pa.Schema]:
    """Those of `annotations/` and `images/` of a run.

    Args:
        results: the settings that change results.
        clips: see `annotation_schema`.
    """
    filtered = "absent" in results.get("prompts", {})
    return annotation_schema(clips, calibrated(results)), image_schema(filtered)


def heat_order(table: pa.Table) -> HeatOrder:
    """The steps that heat is to be made in of what a table has stored."""
    if named := parquet.footer_value(table, "heat_order"):
        return HeatOrder(named)
    if parquet.footer_value(table, "normalise_first", default=False):
        return HeatOrder.NORMALISE_UPSAMPLE
    return HeatOrder.UPSAMPLE_NORMALISE


def image_id(shard: str, key: str) -> int:
    """A number from 1 to 2**53 - 1 that is the same in every run over the same shard.

    Float64, and with it JavaScript and careless tables, has all of them.
    """
    return int(digests.of_text(f"{shard}\0{key}"), base=16) % (2**53 - 1) + 1


def footer(results: dict[str, Any], order: HeatOrder) -> dict[str, Any]:
    """What a file says about its making: only what changes results, so that runs compare equal.

    `normalise_first` says whether stored heat is normalised for good, before it is upsampled;
    `heat_order` is there for the order that this does not tell.
    """
    return {
        "schema_version": results["schema_version"],
        "fingerprint": fingerprint(results),
        "config": results,
        "normalise_first": order is HeatOrder.NORMALISE_UPSAMPLE,
    } | ({"heat_order": order.value} if order.clips else {})


def to_files(
    shard: str,
    rows: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    results: dict[str, Any],
    order: HeatOrder,
) -> dict[str, bytes]:
    """The two tables of a shard: path below the output → complete Parquet file.

    Args:
        shard: its name.
        rows: of `annotations/`.
        images: rows of `images/`.
        results: the settings that change results.
        order: of the steps from raw maps to heat.
    """
    of_masks, of_images = schemas(results, order.clips)
    masks = pa.Table.from_pylist(list(rows), schema=of_masks)
    pictures = pa.Table.from_pylist(list(images), schema=of_images)
    return files_of(shard, masks, pictures, results, order)


def files_of(
    shard: str, annotations: pa.Table, images: pa.Table, results: dict[str, Any], order: HeatOrder
) -> dict[str, bytes]:
    """The same of tables with the columns of `schemas`."""
    metadata = footer(results, order)
    return {
        f"annotations/{shard}.parquet": parquet.to_bytes(annotations, metadata),
        f"images/{shard}.parquet": parquet.to_bytes(images, metadata),
    }
