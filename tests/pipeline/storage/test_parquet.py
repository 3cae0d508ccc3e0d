"""Tables that go into Parquet files come out of them, with what the files say about themselves."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.storage import parquet

SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("n", pa.int32())])
ROWS = [{"key": "a", "n": 1}, {"key": "b", "n": None}]


def test_rows_come_back(tmp_path: Path) -> None:
    location = str(tmp_path / "rows.parquet")
    storage.write_bytes(location, parquet.of_rows(ROWS, SCHEMA))
    table = parquet.read(location)
    assert table.to_pylist() == ROWS
    assert table.schema.equals(SCHEMA, check_metadata=True)


def test_single_columns_can_be_read() -> None:
    table = parquet.from_bytes(parquet.of_rows(ROWS, SCHEMA, {"made": "here"}), ["n"])
    assert table.to_pylist() == [{"n": 1}, {"n": None}]
    assert parquet.footer_value(table, "made") == "here"


def test_a_footer_holds_json_values() -> None:
    footer = {"made": {"by": ["hand", None]}, "whole": False}
    table = parquet.from_bytes(parquet.of_rows([], SCHEMA, footer))
    assert {key: parquet.footer_value(table, key) for key in footer} == footer
    assert parquet.footer_value(table, "weight", default=7) == 7


def test_a_table_without_a_footer_says_nothing() -> None:
    table = parquet.from_bytes(parquet.of_rows([], SCHEMA))
    assert parquet.footer_value(table, "made") is None


def test_the_order_of_a_footer_s_keys_changes_no_byte() -> None:
    one, other = {"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}
    assert parquet.of_rows(ROWS, SCHEMA, one) == parquet.of_rows(ROWS, SCHEMA, other)


@pytest.mark.parametrize("rows", [[{"n": 1}], [{"key": "a", "n": "many"}]])
def test_rows_that_do_not_fit_their_schema_are_refused(rows: list[dict[str, object]]) -> None:
    with pytest.raises((pa.ArrowException, TypeError, ValueError)):
        parquet.from_bytes(parquet.of_rows(rows, SCHEMA))


def test_what_is_no_parquet_file_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        parquet.from_bytes(b"damaged")
