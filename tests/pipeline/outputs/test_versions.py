"""What a release with tables of version 1 wrote (tests/reference/version_1) is read as today's."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import SCHEMA_VERSION
from pipeline.errors import ConfigError
from pipeline.inputs.classes import stable_id
from pipeline.outputs import versions
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.rethreshold import RethresholdConfig, rethreshold
from pipeline.outputs.schema import ANNOTATIONS, IMAGES, image_id
from pipeline.storage import parquet

OLD = Path(__file__).parents[2] / "reference" / "version_1"
(SHARD,) = Ledger(str(OLD)).committed()


def as_written(folder: str) -> list[dict[str, object]]:
    return pq.read_table(OLD / folder / f"{SHARD}.parquet").to_pylist()


@pytest.mark.parametrize(("folder", "schema"), [("annotations", ANNOTATIONS), ("images", IMAGES)])
def test_an_old_table_has_todays_columns_and_its_own_values(folder: str, schema: object) -> None:
    table = Ledger(str(OLD)).read(folder, SHARD)
    assert table.schema.remove_metadata().equals(schema)
    changed = {"image_id", "category_id", "file_name"}
    old = as_written(folder)
    assert [{k: v for k, v in row.items() if k not in changed} for row in table.to_pylist()] == [
        {k: v for k, v in row.items() if k not in changed} for row in old
    ]
    for row, before in zip(table.to_pylist(), old, strict=True):
        assert before["image_id"] != row["image_id"] == image_id(row["shard"], row["key"])
        assert row.get("file_name") is None
        assert before.get("category_id") is None
        assert row.get("category_id") == (
            ("category" in row and stable_id(row["category"])) or None
        )


def test_some_columns_of_an_old_table() -> None:
    table = Ledger(str(OLD)).read("annotations", SHARD, ["image_id"], ["category_id", "raw_min"])
    assert table.column_names == ["image_id", "category_id"]
    whole = Ledger(str(OLD)).read("annotations", SHARD)
    assert table.to_pylist() == whole.select(["image_id", "category_id"]).to_pylist()


def test_masks_made_again_of_an_old_run_are_todays(tmp_path: Path) -> None:
    assert rethreshold(RethresholdConfig(source=str(OLD), output=str(tmp_path))) > 0.98
    made = Ledger(str(tmp_path))
    assert made.identity()["schema_version"] == SCHEMA_VERSION
    rows = pq.read_table(tmp_path / "annotations" / f"{SHARD}.parquet").to_pylist()
    names = {row["category"] for row in rows}
    assert {row["category_id"] for row in rows} == {stable_id(name) for name in names}
    listed = json.loads((tmp_path / "categories.json").read_text())
    assert {category["name"] for category in listed} == names


def test_a_later_version_is_refused_in_a_line() -> None:
    table = pq.read_table(OLD / "images" / f"{SHARD}.parquet")
    data = parquet.to_bytes(table, {"schema_version": SCHEMA_VERSION + 1})
    assert pq.read_table(io.BytesIO(data)).num_rows
    with pytest.raises(ConfigError, match=f"schema version {SCHEMA_VERSION + 1}, and this release"):
        versions.read(data)
