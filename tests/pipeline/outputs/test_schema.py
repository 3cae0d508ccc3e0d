"""The tables' columns, which readers rely on."""

import json

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from legrad import HeatOrder
from pipeline.config import SCHEMA_VERSION, AnnotateConfig, ModelConfig
from pipeline.outputs.schema import (
    ANNOTATIONS,
    IMAGES,
    annotation_schema,
    footer,
    heat_order,
    image_id,
    image_schema,
    to_files,
)
from pipeline.storage import parquet

ANNOTATION_COLUMNS = {
    "shard": "string not null",
    "sample_index": "int32 not null",
    "key": "string not null",
    "image_id": "int64 not null",
    "height": "int32 not null",
    "width": "int32 not null",
    "prompt_index": "int32 not null",
    "prompt": "string not null",
    "category": "string",
    "category_id": "int32",
    "score": "float not null",
    "raw_max": "float not null",
    "heat_mean": "float not null",
    "threshold": "float not null",
    "area": "int64 not null",
    "bbox": "fixed_size_list<item: float>[4] not null",
    "segmentation": "struct<size: fixed_size_list<item: int32>[2], counts: string> not null",
    "heat": "binary",
    "heat_shape": "fixed_size_list<item: int32>[2]",
}
IMAGE_COLUMNS = {
    "shard": "string not null",
    "sample_index": "int32 not null",
    "key": "string not null",
    "file_name": "string",
    "image_id": "int64 not null",
    "height": "int32",
    "width": "int32",
    "status": "string not null",
    "reason": "string",
    "detail": "string",
    "prompts": "int32 not null",
    "prompts_cut": "int32 not null",
    "masks": "int32 not null",
    "without_mask": "list<item: struct<reason: string, count: int32>> not null",
}
ROW = {
    "shard": "s",
    "sample_index": 0,
    "key": "k",
    "image_id": 1,
    "height": 2,
    "width": 3,
    "prompt_index": 0,
    "prompt": "a photo of a собака.",
    "category": "собака",
    "category_id": None,
    "score": 0.25,
    "raw_max": 0.5,
    "heat_mean": 0.75,
    "threshold": 0.5,
    "area": 2,
    "bbox": [0.0, 0.0, 1.0, 2.0],
    "segmentation": {"size": [2, 3], "counts": "024"},
    "heat": b"\x00\xff",
    "heat_shape": [1, 2],
}


def columns(schema: pa.Schema) -> dict[str, str]:
    """Name → type. Arrow and Parquet call the inside of a list by different names."""
    types = {f.name: str(f.type).replace("element:", "item:") for f in schema}
    return {f.name: types[f.name] + ("" if f.nullable else " not null") for f in schema}


@pytest.mark.parametrize(
    ("schema", "golden"), [(ANNOTATIONS, ANNOTATION_COLUMNS), (IMAGES, IMAGE_COLUMNS)]
)
def test_columns_and_types(schema: pa.Schema, golden: dict[str, str]) -> None:
    assert columns(schema) == golden
    assert list(columns(schema)) == list(golden)
    written = pq.read_schema(pa.BufferReader(parquet.of_rows([], schema, {})))
    assert columns(written) == golden


def test_a_feature_has_its_columns_only_where_it_is_on() -> None:
    calibrated = columns(annotation_schema(clips=False, calibrated=True))
    assert calibrated == ANNOTATION_COLUMNS | {"probability": "float not null"}
    assert list(calibrated)[10:13] == ["score", "probability", "raw_max"]
    assert annotation_schema(clips=False) == ANNOTATIONS and image_schema(False) == IMAGES
    assert columns(image_schema(filtered=True)) == IMAGE_COLUMNS | {
        "absent": "list<item: struct<prompt_index: int32, category: string, score: float>> not null"
    }


def test_a_file_without_rows_has_the_same_schema_as_one_with_rows() -> None:
    empty, full = (
        pq.read_table(pa.BufferReader(parquet.of_rows(rows, ANNOTATIONS, {})))
        for rows in ([], [ROW])
    )
    assert empty.schema.equals(full.schema, check_metadata=True)
    assert pa.concat_tables([empty, full]).to_pylist() == [ROW]


def test_equal_rows_give_equal_bytes() -> None:
    assert parquet.of_rows([ROW], ANNOTATIONS, {"a": 1}) == parquet.of_rows(
        [dict(ROW)], ANNOTATIONS, {"a": 1}
    )


def test_a_row_of_pandas_decodes_with_coco() -> None:
    frame = pandas.read_parquet(pa.BufferReader(parquet.of_rows([ROW], ANNOTATIONS, {})))
    assert coco.decode(frame.segmentation[0]).tolist() == [[1, 0, 0], [1, 0, 0]]
    assert isinstance(frame.segmentation[0]["counts"], str)
    metadata = pq.read_metadata(pa.BufferReader(parquet.of_rows([ROW], ANNOTATIONS, {})))
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_footer_says_what_changes_results_and_nothing_else() -> None:
    config = AnnotateConfig(input="in", output="/out")
    data = parquet.of_rows([], IMAGES, footer(config.identity(), HeatOrder.UPSAMPLE_NORMALISE))
    metadata = pq.read_schema(pa.BufferReader(data)).metadata
    assert set(metadata) == {
        b"schema_version",
        b"fingerprint",
        b"config",
        b"normalise_first",
    }
    assert json.loads(metadata[b"schema_version"]) == SCHEMA_VERSION
    assert json.loads(metadata[b"fingerprint"]) == config.fingerprint()
    settings = json.loads(metadata[b"config"])
    assert settings == config.identity()
    assert not {"output", "input", "engine", "input_root"} & settings.keys()
    other = AnnotateConfig(model=ModelConfig(precision="bfloat16"))
    assert (
        footer(other.identity(), HeatOrder.UPSAMPLE_NORMALISE)["fingerprint"]
        != config.fingerprint()
    )


@pytest.mark.parametrize("order", HeatOrder)
def test_tables_say_in_which_order_heat_is_made(order: HeatOrder) -> None:
    """The two orders that a flag tells apart have no other key, and no other column."""
    row = {**ROW, "raw_min": -0.25}
    files = to_files("s", [row], [], AnnotateConfig().identity(), order)
    read = [pq.read_table(pa.BufferReader(data)) for data in files.values()]
    for table in read:
        assert heat_order(table) is order
        assert (b"heat_order" in table.schema.metadata) == order.clips
        first = json.loads(table.schema.metadata[b"normalise_first"])
        assert first == (order is HeatOrder.NORMALISE_UPSAMPLE)
    assert read[0].schema.equals(annotation_schema(order.clips))
    assert read[0].to_pylist() == [row if order.clips else ROW]
    golden = dict(ANNOTATION_COLUMNS)
    if order.clips:
        golden["raw_min"] = "float not null"
    assert columns(annotation_schema(order.clips)) == golden


def test_a_table_without_a_footer_is_of_the_usual_order() -> None:
    assert heat_order(pa.table({"a": [1]})) is HeatOrder.UPSAMPLE_NORMALISE


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_image_id_is_a_positive_number_that_float64_has(shard: str, key: str) -> None:
    try:
        shard.encode(), key.encode()
    except UnicodeEncodeError:
        return
    assert 1 <= image_id(shard, key) < 2**53


def test_an_image_id_never_changes() -> None:
    assert image_id("shard-0001", "image") == 3_519_159_543_025_005
    assert image_id("shard-0002", "image") != image_id("shard-0001", "image")
