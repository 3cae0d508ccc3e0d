"""Damaged shards and bad samples: each is named, and the others are annotated."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.inputs.shards import find_shards
from pipeline.run.plan import plan
from pipeline.run.queue import Trial
from pipeline.run.worker import MakeWorker
from tests.pipeline.stand_ins import (
    Annotate,
    Labelled,
    MakeConfig,
    MakeTar,
    Tree,
    Write,
    results,
    rows,
)


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
    assert (todo.again.keys(), todo.committed, todo.todo) == ({a.name}, {b.name}, [a])
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
    assert worker.try_shard(Trial(shard, waited_out=True), int).error
    assert worker.try_shard(Trial(shard, last=True), int).error == ""


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
