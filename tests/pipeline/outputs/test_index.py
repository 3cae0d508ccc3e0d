"""What a whole run has: its shards in a table, its categories with an id each."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AnnotateConfig, PromptConfig
from pipeline.errors import ConfigError
from pipeline.inputs.classes import LARGEST_ID, stable_id
from pipeline.inputs.stages import STAGES
from pipeline.outputs.index import SHARDS, CommitTable, categories
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit
from pipeline.run.annotation import annotate
from pipeline.storage import Found

COMMIT = Commit(
    shard="a-12345678", fingerprint="f", uri="s3://bucket/a.tar", bytes=10, samples=6,
    statuses={"annotated": 3, "rejected": 2, "empty": 1}, rejects={"undecodable": 2}, prompts=9,
    prompts_cut=1, masks=5, modified="12",
    files={"images/a-12345678.parquet": {"bytes": 9, "sha256": "0f"}},
    seconds=2.5, attempt=2, degraded=True, incomplete="cut short",
    names=["dog"], threads=3, stages={"read": 0.5, "model": 1.5, "mask": 0.25},
    processor={"read": 0.25},
)  # fmt: skip
SAME_ID = ("n15265", "n27425")
"""The first of the numbers that meet."""


def test_a_row_says_where_a_shard_lies_and_what_became_of_it() -> None:
    stamp = Found(700, "1800000000000000000")
    table = pq.read_table(io.BytesIO(CommitTable.of([COMMIT], {COMMIT.shard: stamp}).to_bytes()))
    assert table.schema.equals(SHARDS)
    assert table.to_pylist() == [
        {
            **dict(shard="a-12345678", location="s3://bucket/a.tar", bytes=10, samples=6),
            **dict(annotated=3, empty=1, rejected=2, prompts=9, prompts_cut=1, masks=5),
            **dict(seconds=2.5, read_seconds=0.5, decode_seconds=None, model_seconds=1.5),
            **dict(mask_seconds=0.25, write_seconds=None, read_processor_seconds=0.25),
            **dict.fromkeys(f"{stage}_processor_seconds" for stage in STAGES[1:]),
            **dict(threads=3, attempt=2, degraded=True, incomplete="cut short", modified="12"),
            "fingerprint": "f",
            "statuses": [
                {"status": "annotated", "count": 3},
                {"status": "rejected", "count": 2},
                {"status": "empty", "count": 1},
            ],
            "rejects": [{"reason": "undecodable", "count": 2}],
            "names": ["dog"],
            "files": [{"path": "images/a-12345678.parquet", "bytes": 9, "sha256": "0f"}],
            **dict(commit_bytes=700, commit_written="1800000000000000000"),
        }
    ]
    assert pq.read_table(io.BytesIO(CommitTable.of([]).to_bytes())).schema.equals(SHARDS)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_an_id_is_one_that_coco_takes(name: str) -> None:
    assert 1 <= stable_id(name) <= LARGEST_ID


def test_an_id_never_changes() -> None:
    assert stable_id("dog") == 2_019_368_395


def test_categories_are_those_of_the_file_and_those_that_came_by() -> None:
    more = replace(COMMIT, names=["cat", "dog"])
    assert categories([{"id": 7, "name": "bird"}], [COMMIT, more]) == [
        {"id": 7, "name": "bird"},
        *sorted(
            ({"id": stable_id(name), "name": name} for name in ("cat", "dog")),
            key=lambda category: category["id"],
        ),
    ]


def test_two_names_with_one_id_are_an_error_that_names_both() -> None:
    first, second = SAME_ID
    assert stable_id(first) == stable_id(second)
    with pytest.raises(ConfigError, match=f"{first!r} and {second!r} have the same id"):
        categories([], [replace(COMMIT, names=[first]), replace(COMMIT, names=[second])])
    with pytest.raises(ConfigError, match=f"'wolf' and {first!r} have the same id"):
        categories([{"id": stable_id(first), "name": "wolf"}], [replace(COMMIT, names=[first])])


def test_a_run_ends_with_its_index(
    tmp_path: Path,
    tar: Callable[..., bytes],
    labelled: Callable[..., list[tuple[str, bytes]]],
    write_shards: Callable[..., str],
    make_config: Callable[..., AnnotateConfig],
) -> None:
    """Also a run that is gone on with; ids do not depend on which shards came first."""
    path = tmp_path / "classes.yaml"
    path.write_text("- {id: 5, name: dog}")
    shards = write_shards(
        a=tar([*labelled("d/0", ["dog", "cat"]), *labelled("1", ["cat"], b"junk")]),
        b=tar(labelled("0", ["bird"])),
    )
    config = make_config(input=shards, prompts=PromptConfig(classes=str(path)))
    annotate(replace(config, input=f"{shards}/b.tar"))
    annotate(config)
    ledger = Ledger(config.output)
    table = pq.read_table(Path(ledger.output, "shards.parquet")).to_pylist()
    assert [row["location"] for row in table] == [f"{shards}/a.tar", f"{shards}/b.tar"]
    assert [(row["annotated"], row["rejected"]) for row in table] == [(1, 1), (1, 0)]
    for row in table:
        for stage in STAGES:
            assert row[f"{stage}_processor_seconds"] <= row[f"{stage}_seconds"] + 0.05
        assert row["model_seconds"] > 0 and row["model_processor_seconds"] >= 0
    card = Path(ledger.output, "README.md").read_text().split("---\n")
    configs = yaml.safe_load(card[1])["configs"]
    assert [config["config_name"] for config in configs] == ["annotations", "images", "shards"]
    for named in configs:
        assert list(Path(ledger.output).glob(named["data_files"]))
    listed = json.loads(Path(ledger.output, "categories.json").read_text())
    names = {category["name"]: category["id"] for category in listed}
    assert names == {"dog": 5, "cat": stable_id("cat"), "bird": stable_id("bird")}
    (first, _) = ledger.commits()
    images = ledger.read("images", first.shard).to_pylist()
    assert [row["file_name"] for row in images] == ["d/0.jpg", "1.jpg"]
    masks = ledger.read("annotations", first.shard).to_pylist()
    assert {row["category"]: row["category_id"] for row in masks} == {
        name: names[name] for name in ("dog", "cat")
    }
