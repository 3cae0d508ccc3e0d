"""Tables of earlier versions, brought to the present one as they are read.

Version 1 had an `image_id` of 63 bits, a `category_id` only where a class file gave one, and no
`file_name`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.config import SCHEMA_VERSION
from pipeline.errors import ConfigError
from pipeline.inputs.classes import stable_id
from pipeline.outputs.schema import ANNOTATIONS, IMAGES, image_id
from pipeline.storage import parquet


def read(data: bytes, columns: list[str] | None = None, optional: Sequence[str] = ()) -> pa.Table:
    """The table in a file, or some of its columns, as this version has them.

    See `parquet.from_bytes` for the arguments.

    Raises:
        ConfigError: a later version made it.
        pyarrow.ArrowException: the bytes are no Parquet file, or it has not these columns.
    """
    version = parquet.footer_value(
        parquet.from_bytes(data, []), "schema_version", default=SCHEMA_VERSION
    )
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"its tables have schema version {version}, and this release reads up to "
            f"{SCHEMA_VERSION}: use the release that made them"
        )
    if version == SCHEMA_VERSION:
        return parquet.from_bytes(data, columns, optional)
    table = _upgraded(parquet.from_bytes(data))
    if columns is None:
        return table
    return table.select([*columns, *(name for name in optional if name in table.column_names)])


def _upgraded(table: pa.Table) -> pa.Table:
    """A whole table of version 1; one with counts has nothing that has changed."""
    if "image_id" not in table.column_names:
        return table
    keys = zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True)
    table = _put(table, IMAGES.field("image_id"), [image_id(*pair) for pair in keys])
    if "category" not in table.column_names:
        files = pa.nulls(len(table), pa.string())
        return table.add_column(
            IMAGES.get_field_index("file_name"), IMAGES.field("file_name"), files
        )
    named = zip(table["category_id"].to_pylist(), table["category"].to_pylist(), strict=True)
    ids = [
        stable_id(name) if number is None and name is not None else number for number, name in named
    ]
    return _put(table, ANNOTATIONS.field("category_id"), ids)


def _put(table: pa.Table, field: pa.Field, values: list[int | None]) -> pa.Table:
    place = table.column_names.index(field.name)
    return table.set_column(place, field, pa.array(values, field.type))
