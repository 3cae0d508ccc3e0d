"""Tables as Parquet files, in memory and back; what a file says about itself is JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.files import read_bytes

COMPRESSION = "zstd"


def to_bytes(table: pa.Table, footer: Mapping[str, Any] | None = None) -> bytes:
    """A complete file: equal tables and footers make equal bytes.

    Args:
        table: the rows.
        footer: what the file says about itself; values are stored as JSON.
    """
    if footer is not None:
        encoded = {key: json.dumps(value, sort_keys=True) for key, value in footer.items()}
        table = table.replace_schema_metadata(encoded)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=COMPRESSION)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def of_rows(
    rows: Sequence[Mapping[str, Any]], schema: pa.Schema, footer: Mapping[str, Any] | None = None
) -> bytes:
    """The same of rows: one mapping each, with every column of `schema` that may not be null."""
    return to_bytes(pa.Table.from_pylist(list(rows), schema=schema), footer)


def from_bytes(
    data: bytes, columns: list[str] | None = None, optional: Sequence[str] = ()
) -> pa.Table:
    """The table in a file, or only some of its columns, footer and all.

    Args:
        data: the file.
        columns: to read; None for all.
        optional: to read beside `columns` where the file has them.

    Raises:
        pyarrow.ArrowException: the bytes are no Parquet file, or it has not these columns.
    """
    if columns is not None and optional:
        names = pq.read_schema(pa.BufferReader(data)).names
        columns = [*columns, *(name for name in optional if name in names)]
    return pq.read_table(pa.BufferReader(data), columns=columns)


def read(location: str, columns: list[str] | None = None, optional: Sequence[str] = ()) -> pa.Table:
    """The same from where the file lies.

    Raises:
        OSError: it cannot be read.
        pyarrow.ArrowException: see `from_bytes`.
    """
    return from_bytes(read_bytes(location), columns, optional)


def footer_value(table: pa.Table, key: str, default: Any = None) -> Any:
    """What the footer of the file that a table was read from says under a key, if it does."""
    metadata = table.schema.metadata or {}
    return json.loads(metadata[key.encode()]) if key.encode() in metadata else default
