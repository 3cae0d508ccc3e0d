"""Shards through the worker, the ledger and the passes: what a run leaves, and what it survives."""

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools import mask as coco

from pipeline.config import AnnotateConfig, EngineConfig, MaskConfig, PromptConfig
from pipeline.demo.run import SHARDS
from pipeline.explanation import Maps, PromptExplainer
from pipeline.ledger import Ledger
from pipeline.local import LocalExecutor
from pipeline.masks import decode, measure
from pipeline.passes import WORKER_DIED, plan
from pipeline.samples import Sample
from pipeline.schema import image_id
from pipeline.shards import Shard, find_shards
from pipeline.worker import MakeWorker, Outcome, Worker

Rows = list[dict[str, Any]]
Annotate = Callable[..., Ledger]
MakeConfig = Callable[..., AnnotateConfig]
Tree = Callable[[str], dict[str, bytes]]


def rows(ledger: Ledger, table: str) -> Rows:
    """All rows of `annotations` or `images`, shard by shard."""
    files = sorted(Path(ledger.output, table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def results(tree: dict[str, bytes]) -> dict[str, bytes]:
    """What must be the same in every run of the same configuration."""
    return {path: data for path, data in tree.items() if path.startswith(("annotations", "images"))}


# --- a run over the demo


@pytest.fixture(scope="module")
def demo_config(tmp_path_factory: pytest.TempPathFactory) -> AnnotateConfig:
    engine = EngineConfig(executor="local", threads=1, log_seconds=1000.0)
    output = str(tmp_path_factory.mktemp("demo") / "out")
    # Forty samples of 64: with batches of 16, the last one is not full.
    return AnnotateConfig(input=str(SHARDS), output=output, engine=engine, limit_samples=40)


def run(config: AnnotateConfig, make_worker: MakeWorker) -> Ledger:
    ledger = Ledger(config.output)
    ledger.open(config.results(), {}, [])
    shards = find_shards(config.patterns)
    outcomes = LocalExecutor(config, make_worker)(shards, 1, 2)
    assert sorted(outcomes, key=lambda o: o.shard) == [Outcome(s.name, s.size) for s in shards]
    ledger.summarise(shard.name for shard in shards)
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
            "summary.json",
        ]
    )


def test_every_key_is_there_once_and_counts_agree(demo: Ledger) -> None:
    images, annotations = rows(demo, "images"), rows(demo, "annotations")
    assert sorted(row["key"] for row in images) == [
        f"scene{64 * shard + i:05d}" for shard in range(3) for i in range(40)
    ]
    assert len({row["image_id"] for row in images}) == len(images)
    masks = Counter(row["key"] for row in annotations)
    for row in images:
        dropped = sum(reason["count"] for reason in row["without_mask"])
        assert row["image_id"] == image_id(row["shard"], row["key"])
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
        assert row["category_id"] is None
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
    others = {p: p.stat().st_mtime_ns for p in output.rglob("*.parquet") if name not in p.name}
    annotate(config)
    assert results(tree(str(output))) == results(tree(demo.output))
    assert {p: p.stat().st_mtime_ns for p in others} == others, "committed shards are left alone"


# --- failures of shards


Write = Callable[..., str]
Labelled = Callable[..., list[tuple[str, bytes]]]
MakeTar = Callable[..., bytes]


@pytest.fixture
def good(tar: MakeTar, labelled: Labelled) -> bytes:
    """Six samples of two labels each."""
    return tar(member for i in range(6) for member in labelled(f"{i}", ["dog", "cat"]))


def test_a_damaged_shard_fails_alone(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate, tree: Tree
) -> None:
    folder = write_shards(a=good, b=good[:4096], c=good)
    config = make_config(input=folder)
    ledger = annotate(config)
    names = {shard.name[0]: shard.name for shard in find_shards([folder])}
    assert ledger.committed() == {names["a"], names["c"]}
    assert list(ledger.failures()) == [names["b"]]
    assert "cut short" in ledger.failures()[names["b"]]
    assert ledger.summary().missing == [names["b"]]
    assert not [path for path in tree(ledger.output) if path.startswith("images/b")]

    # It is not tried again, unless that is asked for; the same damage fails again.
    assert not plan(config, ledger, find_shards([folder])).todo
    Path(folder, "b.tar").write_bytes(good)
    assert not plan(config, ledger, find_shards([folder])).todo
    annotate(replace(config, retry_failed=True))
    assert ledger.committed() == set(names.values())
    assert ledger.failures() == {}


def test_a_shard_of_another_size_is_done_again(
    good: bytes,
    tar: MakeTar,
    labelled: Labelled,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    folder = write_shards(a=good, b=good)
    config = make_config(input=folder)
    ledger = annotate(config)
    write_shards(
        a=tar([*labelled("new", ["car"]), *labelled("newer", ["car"]), ("x", bytes(20000))])
    )
    (a, b) = find_shards([folder])
    todo = plan(config, ledger, [a, b])
    assert (todo.changed, todo.committed, todo.todo) == ({a.name}, {b.name}, [a])
    annotate(config)
    assert {row["key"] for row in rows(ledger, "images") if row["shard"] == a.name} == {
        "new",
        "newer",
    }
    assert not plan(config, ledger, [a, b]).todo


def test_what_can_be_read_is_salvaged(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate
) -> None:
    cut = good[: good.index(b"4.jpg") + 1000]
    folder = write_shards(a=cut, b=good)
    ledger = annotate(make_config(input=folder, salvage=True))
    a, b = ledger.commits()
    assert "cut short" in a.incomplete and b.incomplete == ""
    assert (a.samples, b.samples) == (4, 6)  # the header of the fifth says the fourth is whole
    assert ledger.summary().incomplete == {a.shard: a.incomplete}
    assert [row["key"] for row in rows(ledger, "images")[:4]] == ["0", "1", "2", "3"]


def test_salvaging_waits_for_the_last_attempt(
    good: bytes, write_shards: Write, make_config: MakeConfig, make_worker: MakeWorker
) -> None:
    config = make_config(input=write_shards(a=good[:4096]), salvage=True)
    (shard,) = find_shards(config.patterns)
    worker = make_worker(config)
    assert worker.try_shard(shard, 1, int).error
    assert worker.try_shard(shard, config.engine.max_attempts, int).error == ""


@pytest.mark.parametrize(("fraction", "fails"), [(0.5, False), (0.49, True), (0.0, True)])
def test_a_shard_with_many_rejects_fails(
    fraction: float,
    fails: bool,
    tar: MakeTar,
    labelled: Labelled,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    members = [*labelled("a", ["dog"]), *labelled("b", ["dog"], b"no image")]
    config = make_config(input=write_shards(a=tar(members)), max_reject_fraction=fraction)
    ledger = annotate(config)
    assert bool(ledger.failures()) == fails
    for reason in ledger.failures().values():
        assert "1 of 2 samples rejected (1 undecodable; the first: b: undecodable: " in reason
        assert "--max_reject_fraction" in reason


def test_every_reject_has_a_reason(
    tar: MakeTar,
    labelled: Labelled,
    picture: Callable[..., bytes],
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
    tree: Tree,
) -> None:
    members = [
        *labelled("good", ["dog", "собака"]),
        *labelled("dotted.name", ["dog"]),
        *labelled("no-labels", []),
        *labelled("not-an-image", ["dog"], b"\x00" * 100),
        *labelled("truncated", ["dog"], picture(size=(100, 99))[:-300]),
        *labelled("bomb", ["dog"], picture(size=(101, 100))),
        *labelled("good", ["dog"]),
        ("no-json.jpg", picture()),
        ("no-image.json", b'{"labels": ["dog"]}'),
        ("bad-json.jpg", picture()),
        ("bad-json.json", b"{"),
        ("img.0.jpg", picture()),
        ("img.1.jpg", picture()),
        ("twice.jpg", picture()),
        ("twice.jpg", picture()),
        *labelled("../../escape", ["dog"]),
        *labelled("last", ["dog"]),
    ]
    config = make_config(input=write_shards(a=tar(members)), max_pixels=10_000)
    config = replace(config, max_reject_fraction=1.0)
    ledger = annotate(config)
    images = rows(ledger, "images")
    assert [(row["key"], row["status"], row["reason"]) for row in images] == [
        ("good", "annotated", None),
        ("dotted", "rejected", "missing_field"),  # its fields are name.jpg and name.json
        ("no-labels", "empty", None),
        ("not-an-image", "rejected", "undecodable"),
        ("truncated", "rejected", "undecodable"),
        ("bomb", "rejected", "too_large"),
        ("good", "rejected", "duplicate_key"),
        ("no-json", "rejected", "missing_field"),
        ("no-image", "rejected", "missing_field"),
        ("bad-json", "rejected", "bad_prompts"),
        ("img", "rejected", "missing_field"),
        ("twice", "rejected", "duplicate_field"),
        ("../../escape", "annotated", None),
        ("last", "annotated", None),
    ]
    assert [row["sample_index"] for row in images] == list(range(len(images)))
    assert all(row["detail"] for row in images if row["status"] == "rejected")
    (commit,) = ledger.commits()
    assert commit.rejects == dict(
        sorted(Counter(row["reason"] for row in images if row["reason"]).items())
    )
    first = results(tree(ledger.output))
    again = annotate(replace(config, output=config.output + "-again"))
    assert results(tree(again.output)) == first


@pytest.mark.parametrize("kind", ["empty", "all rejected", "nothing to look for"])
def test_a_shard_without_masks_has_the_same_schema(
    kind: str,
    good: bytes,
    tar: MakeTar,
    labelled: Labelled,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    members = {
        "empty": [],
        "all rejected": labelled("a", ["dog"], b"no image"),
        "nothing to look for": labelled("a", []),
    }
    folder = write_shards(a=tar(members[kind]), b=good)
    ledger = annotate(make_config(input=folder, max_reject_fraction=1.0))
    assert len(ledger.committed()) == 2
    for table in ("annotations", "images"):
        bare, full = sorted(Path(ledger.output, table).glob("*.parquet"))
        assert pq.read_schema(bare).equals(pq.read_schema(full), check_metadata=True)
    assert len(rows(ledger, "images")) == 6 + (kind != "empty")


# --- errors that are nobody's fault but the code's or the machine's


class Broken:
    """The real explainer, with an error for images of one key."""

    def __init__(self, explainer: PromptExplainer, error: Exception, times: int) -> None:
        self.explainer, self.error, self.times = explainer, error, times
        self.device, self.embed_width = explainer.device, explainer.embed_width
        self.squash, self.has_prompts = explainer.squash, explainer.has_prompts

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        if self.times and any(sample.key == "poison" for sample in samples):
            self.times -= 1
            raise self.error
        return self.explainer(samples)


@pytest.mark.parametrize(("times", "commits"), [(1, 3), (99, 2)])
def test_an_exception_is_tried_again_and_touches_no_other_shard(
    times: int,
    commits: int,
    good: bytes,
    tar: MakeTar,
    labelled: Labelled,
    explainer: PromptExplainer,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = write_shards(a=good, b=tar(labelled("poison", ["dog"])), c=good)
    broken = Broken(explainer, RuntimeError("boom"), times)
    ledger = annotate(make_config(input=folder), lambda config: Worker(config, lambda _: broken))
    assert len(ledger.committed()) == commits
    assert list(ledger.failures().values()) == ["RuntimeError: boom"] * (3 - commits)
    assert "boom" in capfd.readouterr().err
    for commit in ledger.commits():
        assert commit.attempt == (2 if commit.uri.endswith("b.tar") else 1)


def test_memory_that_suffices_for_single_pairs_is_enough(
    good: bytes,
    explainer: PromptExplainer,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    class Tiny(Broken):
        def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
            if sum(len(sample.prompts) for sample in samples) > 1:
                raise torch.OutOfMemoryError("no memory")
            return self.explainer(samples)

    config = make_config(input=write_shards(a=good))
    whole = annotate(config)
    halved = annotate(
        replace(config, output=config.output + "-halved"),
        lambda config: Worker(config, lambda _: Tiny(explainer, RuntimeError(), 0)),
    )
    assert [c.degraded for c in (*whole.commits(), *halved.commits())] == [False, True]
    for ours, theirs in zip(rows(halved, "annotations"), rows(whole, "annotations"), strict=True):
        assert (ours["key"], ours["prompt"]) == (theirs["key"], theirs["prompt"])
        both: Any = [ours["segmentation"]], [theirs["segmentation"]]
        assert coco.iou(*both, [0])[0][0] > 0.99


# --- settings


def test_limits(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate
) -> None:
    folder = write_shards(a=good, b=good[:-4096])
    ledger = annotate(make_config(input=f"{folder}/a.tar", limit_samples=3))
    assert [row["key"] for row in rows(ledger, "images")] == ["0", "1", "2"]


def test_heat_may_be_left_out(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate
) -> None:
    config = make_config(input=write_shards(a=good), mask=MaskConfig(heat=False, threshold=0.6))
    for row in rows(annotate(config), "annotations"):
        assert row["heat"] is None and row["heat_shape"] is None
        assert row["threshold"] == pytest.approx(0.6)


def test_batches_do_not_depend_on_rejects_in_between(
    tar: MakeTar,
    labelled: Labelled,
    picture: Callable[..., bytes],
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    """Rejected samples take no place in a batch, so that the others' bytes stay the same."""
    samples = [labelled(f"{i}", ["dog", "car"], picture(i)) for i in range(7)]
    clean = tar(m for sample in samples for m in sample)
    damaged = tar(m for i, s in enumerate(samples) for m in [*labelled(f"bad{i}", 0), *s])
    config = make_config(input=write_shards(a=clean))
    columns = ("key", "prompt", "score", "raw_max", "heat", "area")
    first = [[row[c] for c in columns] for row in rows(annotate(config), "annotations")]
    write_shards(a=damaged)
    config = replace(config, output=config.output + "-damaged")
    assert [[r[c] for c in columns] for r in rows(annotate(config), "annotations")] == first


def test_a_vocabulary_finds_the_masks_that_labels_find(
    tmp_path: Path,
    good: bytes,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("- {id: 5, name: dog}\n- {id: 9, name: cat}")
    config = make_config(input=write_shards(a=good))
    by_labels = rows(
        annotate(replace(config, prompts=PromptConfig(classes=str(path)))), "annotations"
    )
    by_vocabulary = rows(
        annotate(
            replace(
                config,
                output=config.output + "-vocabulary",
                prompts=PromptConfig("vocabulary", classes=str(path)),
            ),
            Worker,
        ),
        "annotations",
    )
    found = {(row["key"], row["category"]): row for row in by_vocabulary}
    assert len(found) == len(by_labels) == 12
    for row in by_labels:
        same = found[row["key"], row["category"]]
        assert row["category_id"] == same["category_id"] in (5, 9)
        assert (row["prompt"], row["area"]) == (same["prompt"], same["area"])
        np.testing.assert_array_equal(decode(row["segmentation"]), decode(same["segmentation"]))


def test_embeddings_from_the_samples(
    tar: MakeTar, picture: Callable[..., bytes], write_shards: Write,
    make_config: MakeConfig, annotate: Annotate,
) -> None:  # fmt: skip
    def npy(vectors: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, vectors)
        return stream.getvalue()

    vectors = np.random.default_rng(0).normal(size=(2, 128))
    names = b'{"sounds": ["bark", "bark"]}'
    members = [
        *(("a.jpg", picture()), ("a.json", names), ("a.npy", npy(vectors))),
        *(("b.jpg", picture()), ("b.json", names), ("b.npy", npy(vectors[:, :64]))),
    ]
    prompts = PromptConfig("embeddings", field="sounds")
    ledger = annotate(make_config(input=write_shards(a=tar(members)), prompts=prompts), Worker)
    assert [
        (row["prompt"], row["category"], row["category_id"], row["prompt_index"])
        for row in rows(ledger, "annotations")
    ] == [("bark", "bark", None, i) for i in (0, 1)]
    _, other = rows(ledger, "images")
    assert other["detail"] == "vectors of 64, and the model's are 128"


# --- the worker alone


def test_images_are_reported_and_errors_are_outcomes(
    good: bytes, write_shards: Write, make_config: MakeConfig, make_worker: MakeWorker,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = make_config(input=write_shards(a=good))
    (shard,) = find_shards(config.patterns)
    worker, done = make_worker(config), []
    assert worker.try_shard(shard, 1, done.append) == Outcome(shard.name, shard.size)
    assert done == [4, 2]
    gone = Shard("/nowhere.tar", "/nowhere.tar", 0)
    outcome = worker.try_shard(gone, 1, done.append)
    assert outcome.error.startswith("FileNotFoundError") and not outcome.final
    assert "nowhere" in capfd.readouterr().err
    assert WORKER_DIED not in outcome.error
