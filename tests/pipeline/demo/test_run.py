"""What a run over the demo leaves, and what is the same in the next one."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.demo.run import SHARDS
from pipeline.inputs.classes import stable_id
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import measure
from pipeline.outputs.schema import image_id
from pipeline.run.local_executor import LocalExecutor
from pipeline.run.queue import ShardQueue
from pipeline.run.worker import MakeWorker
from tests.pipeline.stand_ins import (
    Annotate,
    Tree,
    results,
    rows,
)


@pytest.fixture(scope="module")
def demo_config(tmp_path_factory: pytest.TempPathFactory) -> AnnotateConfig:
    engine = ExecutionConfig(executor="local", threads=1, log_seconds=1000.0)
    output = str(tmp_path_factory.mktemp("demo") / "out")
    # Twenty samples of 64: with batches of 16, the last one is not full.
    return AnnotateConfig(input=str(SHARDS), output=output, engine=engine, limit_samples=20)


def run(config: AnnotateConfig, make_worker: MakeWorker) -> Ledger:
    ledger = Ledger(config.output)
    ledger.open(config.identity(), {}, [])
    shards = find_shards(config.patterns)
    queue = ShardQueue(config.engine, shards, lambda *_: None)
    LocalExecutor(config, make_worker).run(queue)
    assert set(queue.done) == set(shards)
    ledger.summarise(shard.name for shard in shards)
    ledger.write_index(ledger.commits())
    return ledger


@pytest.fixture(scope="module")
def demo(demo_config: AnnotateConfig, make_worker: MakeWorker) -> Ledger:
    return run(demo_config, make_worker)


def test_a_run_leaves_these_files_and_no_others(demo: Ledger, tree: Tree) -> None:
    names = [shard.name for shard in find_shards([str(SHARDS)])]
    assert sorted(tree(demo.output)) == sorted(
        [
            *(f"annotations/{name}.parquet" for name in names),
            "categories.json",
            *(f"commits/{name}.json" for name in names),
            *(f"images/{name}.parquet" for name in names),
            "run.json",
            "shards.parquet",
            "summary.json",
        ]
    )


def test_every_key_is_there_once_and_counts_agree(demo: Ledger) -> None:
    images, annotations = rows(demo, "images"), rows(demo, "annotations")
    assert sorted(row["key"] for row in images) == [
        f"scene{64 * shard + i:05d}" for shard in range(3) for i in range(20)
    ]
    assert len({row["image_id"] for row in images}) == len(images)
    masks = Counter(row["key"] for row in annotations)
    for row in images:
        dropped = sum(reason["count"] for reason in row["without_mask"])
        assert row["image_id"] == image_id(row["shard"], row["key"])
        assert row["file_name"] == f"{row['key']}.jpg"
        assert row["masks"] == masks[row["key"]]
        assert row["prompts"] == row["masks"] + dropped
        assert row["status"] == ("annotated" if row["masks"] else "empty")
        assert (row["height"], row["width"]) == (160, 160)
    summary = json.loads(Path(demo.output, "summary.json").read_text())
    assert summary["samples"] == len(images) == sum(summary["statuses"].values())
    assert summary["masks"] == len(annotations)
    assert summary["prompts"] == sum(row["prompts"] for row in images)
    assert (summary["shards"], summary["missing"]) == (3, [])


def test_rows_are_sorted_and_say_what_their_mask_is(demo: Ledger) -> None:
    annotations = rows(demo, "annotations")
    for shard in {row["shard"] for row in annotations}:
        order = [(r["sample_index"], r["prompt_index"]) for r in annotations if r["shard"] == shard]
        assert order == sorted(set(order))
    for row in annotations:
        area, box = measure(row["segmentation"])
        assert (row["area"], row["bbox"]) == (area, box)
        assert row["segmentation"]["size"] == [row["height"], row["width"]] == [160, 160]
        assert row["prompt"] == f"a photo of a {row['category']}."
        assert row["category_id"] == stable_id(row["category"])
        assert row["threshold"] == 0.5 < row["heat_mean"] <= 1
        assert -1 <= row["score"] <= 1
        heat = np.frombuffer(row["heat"], np.uint8).reshape(row["heat_shape"])
        assert (heat.shape, heat.min(), heat.max()) == ((12, 12), 0, 255)


def test_commits_record_what_was_written(demo: Ledger, tree: Tree) -> None:
    files = tree(demo.output)
    for commit in demo.commits():
        assert set(commit.files) == {
            f"annotations/{commit.shard}.parquet",
            f"images/{commit.shard}.parquet",
        }
        for path, record in commit.files.items():
            assert record["bytes"] == len(files[path])
            assert record["sha256"] == hashlib.sha256(files[path]).hexdigest()
        assert (commit.attempt, commit.degraded, commit.incomplete) == (1, False, "")
        assert commit.bytes == Path(commit.uri).stat().st_size


def test_two_runs_give_the_same_bytes(
    demo: Ledger, demo_config: AnnotateConfig, make_worker: MakeWorker, tree: Tree, tmp_path: Path
) -> None:
    again = run(replace(demo_config, output=str(tmp_path / "again")), make_worker)
    assert results(tree(again.output)) == results(tree(demo.output))


def test_a_shard_without_commit_is_made_again_to_the_same_bytes(
    demo: Ledger, demo_config: AnnotateConfig, annotate: Annotate, tree: Tree, tmp_path: Path
) -> None:
    output = tmp_path / "resumed"
    shutil.copytree(demo.output, output)
    config = replace(demo_config, output=str(output))
    name = find_shards([str(SHARDS)])[1].name
    (output / "commits" / f"{name}.json").unlink()
    (output / "annotations" / f"{name}.parquet").write_bytes(b"half of a table")
    tables = output.glob("*/*.parquet")
    others = {p: p.stat().st_mtime_ns for p in tables if name not in p.name}
    annotate(config)
    assert results(tree(str(output))) == results(tree(demo.output))
    assert {p: p.stat().st_mtime_ns for p in others} == others, "committed shards are left alone"
