"""Rows that are kept by column make the files that rows one by one would have made."""

import pyarrow as pa
import pytest
import torch

from legrad import HeatOrder
from pipeline.config import AnnotateConfig, MaskConfig, PromptConfig
from pipeline.inputs.prompts import Absent, Prompt, Prompts
from pipeline.inputs.samples import Rejected, Sample
from pipeline.outputs.annotations import Annotated, Annotation
from pipeline.outputs.masks import Mask
from pipeline.outputs.schema import ANNOTATIONS, image_id, to_files
from pipeline.outputs.tables import ROWS, Rows, ShardTables
from pipeline.storage import parquet

PIXELS = torch.zeros(3, 4, 4, dtype=torch.uint8)
DOG, CAT = (Prompt(index, name, index, (name,)) for index, name in enumerate(("dog", "cat")))
HEAT = torch.arange(4, dtype=torch.uint8).view(2, 2)


def mask_row(number: int) -> dict[str, object]:
    return {
        **dict(shard="a", sample_index=number // 3, key=f"k{number // 3}", image_id=number + 1),
        **dict(height=4, width=5, prompt_index=number % 3, prompt=f"thing {number % 7}"),
        **dict(category=None if number % 5 else "dog", category_id=None if number % 5 else 7),
        **dict(score=number / 7, raw_max=number / 3, heat_mean=0.5, threshold=0.25, area=number),
        **dict(bbox=[0.0, 1.0, 2.0, number], segmentation={"size": [4, 5], "counts": f"0{number}"}),
        **dict(heat=bytes([number % 256] * 4), heat_shape=[2, 2]),
    }


@pytest.mark.parametrize("count", [0, 1, ROWS - 1, ROWS, 2 * ROWS + 5])
def test_in_pieces_or_at_once_the_bytes_are_the_same(count: int) -> None:
    expected = [mask_row(number) for number in range(count)]
    rows, at = Rows(ANNOTATIONS), 0
    while at < count:
        some = expected[at : at + 3]
        rows.add(len(some), {name: [row[name] for row in some] for name in ANNOTATIONS.names})
        at += len(some)
    table = rows.table()
    assert table.equals(pa.Table.from_pylist(expected, schema=ANNOTATIONS))
    assert parquet.to_bytes(table, {"a": 1}) == parquet.of_rows(expected, ANNOTATIONS, {"a": 1})


def test_values_without_a_column_are_left_out_and_columns_without_values_are_null() -> None:
    rows = Rows(pa.schema([("a", pa.int32()), ("b", pa.string())]))
    rows.add(2, {"a": [1, 2], "c": [3, 4]})
    assert rows.table().to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": None}]


@pytest.mark.parametrize("presence", [None, 0.1])
@pytest.mark.parametrize("heat", [True, False])
def test_a_shard_has_the_rows_that_are_written_here_by_hand(
    heat: bool, presence: float | None
) -> None:
    prompts = PromptConfig(presence=presence)
    config = AnnotateConfig(input="in", output="out", mask=MaskConfig(heat=heat), prompts=prompts)
    order = HeatOrder.UPSAMPLE_NORMALISE
    tables = ShardTables("s", config, order)
    mask = Mask({"size": [6, 8], "counts": "0`1"}, 48, [0.0, 0.0, 8.0, 6.0], 0.75, 0.5)
    made = Annotation(DOG, "a dog", 0.25, 0.0, 2.0, HEAT, mask, None)
    none = Annotation(CAT, "a cat", 0.5, 0.0, 1.0, HEAT, None, "flat_map")
    sample = Sample(0, "k/0", 6, 8, PIXELS, Prompts([DOG, CAT], blank=2), "k/0.jpg")
    absent = [Absent(CAT, 0.0625)] if presence else []
    tables.add(sample, Annotated([made, none], cut=1, absent=absent))
    tables.add_rejected(Rejected(1, "k/1", "undecodable", "why", None, images=3))
    reasons = [("absent", 1), ("blank", 2), ("flat_map", 1)][0 if presence else 1 :]
    ids = {"shard": "s", "sample_index": 0, "key": "k/0", "image_id": image_id("s", "k/0")}
    annotations = [
        {
            **ids,
            **dict(height=6, width=8, prompt_index=0, prompt="a dog", category="dog"),
            **dict(category_id=0, score=0.25, raw_max=2.0, heat_mean=0.75, threshold=0.5, area=48),
            **dict(bbox=mask.bbox, segmentation=mask.segmentation),
            **dict(heat=bytes(range(4)) if heat else None, heat_shape=[2, 2] if heat else None),
        }
    ]
    images = [
        {
            **ids,
            **dict(file_name="k/0.jpg", height=6, width=8, status="annotated", reason=None),
            **dict(detail=None, prompts=2 + len(absent), prompts_cut=1, masks=1),
            "without_mask": [{"reason": reason, "count": count} for reason, count in reasons],
            "absent": [{"prompt_index": 1, "category": "cat", "score": 0.0625} for _ in absent],
        },
        {
            **ids | {"sample_index": 1, "key": "k/1", "image_id": image_id("s", "k/1")},
            **dict(file_name=None, height=None, width=None, status="rejected"),
            **dict(reason="undecodable", detail="why", prompts=0, prompts_cut=0, masks=0),
            **dict(without_mask=[], absent=[]),
        },
    ]
    assert tables.files() == to_files("s", annotations, images, config.identity(), order)
    assert tables.counts() == {
        **dict(samples=2, statuses={"annotated": 1, "rejected": 1}, rejects={"undecodable": 1}),
        **dict(prompts=2 + len(absent), prompts_cut=1, masks=1),
    }
    assert tables.first_reject() == "k/1: undecodable: why" and tables.lost_images == 3
