"""Commits as a table, which is believed only where it is about the very files that are there."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.config import AnnotateConfig, MaskConfig
from pipeline.inputs.stages import STAGES
from pipeline.outputs import index
from pipeline.outputs.index import STAMP, CommitTable
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import STATUSES, Commit
from pipeline.storage import Found, json_files, parquet

CONFIG = AnnotateConfig(input="in")
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
NUMBERS = st.integers(0, 2**62)
SECONDS = st.floats(0, 1e9)
FILES = st.fixed_dictionaries({"bytes": NUMBERS, "sha256": st.text("0123456789abcdef")})
FIELDS = st.fixed_dictionaries(
    {
        "shard": TEXTS,
        "fingerprint": TEXTS,
        "uri": TEXTS,
        "bytes": NUMBERS,
        "samples": NUMBERS,
        "statuses": st.dictionaries(st.sampled_from([*STATUSES, "counted"]), NUMBERS),
        "rejects": st.dictionaries(TEXTS, NUMBERS),
        "prompts": NUMBERS,
        "prompts_cut": NUMBERS,
        "masks": NUMBERS,
        "files": st.dictionaries(TEXTS, FILES, max_size=3),
        "seconds": SECONDS,
        "attempt": st.integers(1, 2**31 - 1),
        "degraded": st.booleans(),
        "incomplete": TEXTS,
        "names": st.lists(TEXTS),
        "stages": st.dictionaries(st.sampled_from(STAGES), SECONDS),
        "processor": st.dictionaries(st.sampled_from(STAGES), SECONDS),
        "modified": TEXTS,
    }
)
"""Of a commit. The objects are made in the tests, since checking their types takes chance."""
MADE = st.lists(FIELDS, max_size=5, unique_by=lambda fields: fields["shard"])


def commit(shard: str, **fields: Any) -> Commit:
    made = Commit(
        shard=shard, fingerprint=CONFIG.fingerprint(), uri=f"/in/{shard}.tar", bytes=10, samples=4,
        statuses={"annotated": 4}, rejects={}, prompts=5, prompts_cut=0, masks=3, files={},
        seconds=0.25, attempt=1, degraded=False, incomplete="",
    )  # fmt: skip
    return replace(made, **fields)


@given(MADE)
def test_a_commit_and_its_row_say_the_same(fields: list[dict[str, Any]]) -> None:
    """In memory and in a file; also as JSON, which is what the table stands for."""
    made = [Commit(**each) for each in fields]
    expected = sorted(made, key=lambda commit: commit.shard)
    table = CommitTable.of(iter(made))
    assert list(table) == expected and table.names == [commit.shard for commit in expected]
    saved = CommitTable.from_bytes(table.to_bytes())
    assert saved is not None and list(saved) == expected
    assert [Commit(**json.loads(json.dumps(asdict(row)))) for row in saved] == expected


@given(MADE, st.integers(0, 2**5 - 1))
def test_rows_are_taken_out_and_put_in(fields: list[dict[str, Any]], chosen: int) -> None:
    made = [Commit(**each) for each in fields]
    names = sorted(commit.shard for commit in made)
    out = {name for number, name in enumerate(names) if chosen >> number & 1}
    table = CommitTable.of(made)
    rest, taken = table.without(out), table.without(set(names) - out)
    assert rest.names == [name for name in names if name not in out]
    assert list(rest.replaced((), taken)) == list(table)
    others = [replace(row, samples=row.samples + 1) for row in taken]
    both = {row.shard: row for row in (*rest, *others)}
    assert list(table.replaced(out, others)) == [both[name] for name in names]
    assert table.without({"none of them"}) is table


def test_more_rows_than_are_objects_at_once_keep_their_order() -> None:
    made = [commit(f"{number:05}", samples=number) for number in range(2500)]
    assert list(CommitTable.of(reversed(made))) == made


def test_only_what_changes_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "ROWS", 2)
    table = CommitTable.of([commit(name) for name in "acegik"])

    def copied(other: CommitTable) -> str:
        def at(of: CommitTable) -> dict[tuple[int, int], str]:
            rows = (part["shard"] for part in of.table.to_batches(max_chunksize=1))
            return {(row.buffers()[2].address, row.offset): row[0].as_py() for row in rows}

        before = at(table)
        return "".join(name for place, name in at(other).items() if place not in before)

    assert copied(table) == copied(table.without("xyz")) == ""
    assert copied(table.without("e")) == "g"
    assert copied(table.replaced("e", [commit("f"), commit("b")])) == "abcfg"
    assert copied(table.replaced("ac", [commit("z")])) == "ikz"
    assert table.replaced("ac", [commit("z")]).names == list("egikz")
    assert table.without("acegik").names == [] and len(table.without("acegik")) == 0


def test_stamps_are_kept_where_they_are_to_be_believed() -> None:
    stamps = {name: Found(number, f"{number}") for number, name in enumerate("abc")}
    table = CommitTable.of([commit(name) for name in "abcd"], stamps)
    saved = CommitTable.from_bytes(table.to_bytes(unstamped={"b"}))
    assert saved is not None
    rows = [(name, *stamps.get(name, (None, None))) for name in "abcd"]
    assert list(table.rows("shard", *STAMP)) == rows
    rows[1] = ("b", None, None)
    assert list(saved.rows("shard", *STAMP)) == rows


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(str(tmp_path / "out"))
    made.open(CONFIG.identity(), {}, [])
    return made


@pytest.fixture
def finished(ledger: Ledger) -> Ledger:
    """With three shards, committed a while ago, and the table of them."""
    for name in "abc":
        ledger.commit(commit(name), {})
    for path in Path(ledger.output, "commits").iterdir():
        age(path)
    Ledger(ledger.output).write_table()
    return ledger


def age(path: Path, seconds: int = 60) -> None:
    """Make a file so old that its time tells it from any that is written from now on."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns - seconds * 10**9))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    read_bytes = storage.read_bytes

    def noted(location: str) -> bytes:
        names.append(Path(location).name)
        return read_bytes(location)

    monkeypatch.setattr(storage, "read_bytes", noted)
    return names


def seen(ledger: Ledger, read: list[str]) -> tuple[list[Commit], list[str]]:
    """What another process sees, and the commits that it reads for it."""
    read.clear()
    commits = Ledger(ledger.output).commits()
    return commits, sorted(n for n in read if n not in ("run.json", "shards.parquet"))


def test_commits_in_the_table_are_not_read(finished: Ledger, read: list[str]) -> None:
    assert seen(finished, read) == ([commit(name) for name in "abc"], [])


def test_what_was_done_again_since_is_read(finished: Ledger, read: list[str]) -> None:
    """Also when it has the same size, and when it is gone."""
    finished.forget("ab")
    finished.commit(commit("a", masks=4), {})
    assert seen(finished, read) == ([commit("a", masks=4), commit("c")], ["a.json"])


@pytest.mark.parametrize(
    "harm", [lambda data: data[:-20], lambda data: data[: len(data) // 2], lambda _: b"", None]
)
def test_without_the_table_every_commit_is_read(
    finished: Ledger,
    read: list[str],
    harm: Callable[[bytes], bytes] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = Path(finished.output, "shards.parquet")
    if harm is None:
        path.unlink()
    else:
        path.write_bytes(harm(path.read_bytes()))
    expected = ([commit(name) for name in "abc"], ["a.json", "b.json", "c.json"])
    assert seen(finished, read) == expected
    said = "shards.parquet cannot be read (" in capsys.readouterr().out
    assert said == (harm is not None)
    Ledger(finished.output).write_table()
    assert seen(finished, read) == (expected[0], [])


def test_a_table_of_an_earlier_release_is_written_again(finished: Ledger, read: list[str]) -> None:
    path = Path(finished.output, "shards.parquet")
    old = parquet.from_bytes(path.read_bytes()).drop_columns(["files", "commit_written"])
    path.write_bytes(parquet.to_bytes(old))
    commits, asked = seen(finished, read)
    assert (len(commits), len(asked)) == (3, 3)
    Ledger(finished.output).write_table()
    assert seen(finished, read) == (commits, [])


def test_a_table_of_other_settings_is_not_believed(
    finished: Ledger, read: list[str], tmp_path: Path
) -> None:
    """As when it was copied from another run, whose commits have the same sizes and times."""
    other = AnnotateConfig(input="in", mask=MaskConfig(threshold=0.7))
    second = Ledger(str(tmp_path / "second"))
    second.open(other.identity(), {}, [])
    mine = [commit(name, fingerprint=other.fingerprint(), masks=2) for name in "abc"]
    for made in mine:
        second.commit(made, {})
        times = Path(finished.output, "commits", f"{made.shard}.json").stat().st_mtime_ns
        os.utime(Path(second.output, "commits", f"{made.shard}.json"), ns=(times, times))
    data = Path(finished.output, "shards.parquet").read_bytes()
    Path(second.output, "shards.parquet").write_bytes(data)
    assert seen(second, read) == (mine, ["a.json", "b.json", "c.json"])


def test_commits_that_may_be_replaced_without_a_trace_are_read_the_next_time(
    ledger: Ledger, read: list[str]
) -> None:
    """A file that is as young as the times of files are coarse."""
    for name in "ab":
        ledger.commit(commit(name), {})
    age(Path(ledger.output, "commits", "a.json"))
    ledger.write_table()
    assert seen(ledger, read)[1] == ["b.json"]


def test_young_commits_are_read_once_more_by_who_goes_on(
    ledger: Ledger, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they are in the table for good when a long run ends."""
    ledger.commit(commit("a"), {})
    ledger.write_table()
    read.clear()
    later = time.time_ns() + 2 * json_files.SETTLES
    monkeypatch.setattr(time, "time_ns", lambda: later)
    for _ in range(2):
        ledger.write_table()
        assert read.count("a.json") == 1
    assert seen(ledger, read)[1] == []


def test_a_commit_that_is_replaced_while_it_is_read_is_read_again(
    finished: Ledger, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes between the listing and the reading: the row has the older stamp."""
    Path(finished.output, "shards.parquet").unlink()
    listing = json_files.JsonFiles.listing
    writers = iter([Ledger(finished.output)])

    def interrupted(files: json_files.JsonFiles, folder: str) -> dict[str, Found]:
        found = listing(files, folder)
        for writer in writers:
            writer.commit(commit("b", masks=7), {})
            writer.forget("c")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(json_files.JsonFiles, "listing", interrupted)
        table = Ledger(finished.output).write_table()
    assert list(table) == [commit("a"), commit("b", masks=7)]
    Path(finished.output, "commits", "b.json").write_text(json.dumps(asdict(commit("b", masks=8))))
    assert seen(finished, read) == ([commit("a"), commit("b", masks=8)], ["b.json"])


def test_what_workers_report_is_not_read(ledger: Ledger, read: list[str]) -> None:
    worker = Ledger(ledger.output)
    for name in "abc":
        worker.commit(commit(name), {})
    reports = {name: worker.take_report(name) for name in "abcd"}
    assert reports["d"] == worker.take_report("a") == ""
    ledger.report(reports["a"])
    ledger.report(reports["b"])
    ledger.report("")
    Ledger(ledger.output).commit(commit("b", incomplete="cut short"), {})
    read.clear()
    expected = [commit("a"), commit("b", incomplete="cut short"), commit("c")]
    assert ledger.commits() == expected
    assert sorted(read) == ["b.json", "c.json", "shards.parquet"]


def test_the_table_is_written_only_where_it_says_something_new(
    finished: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write_bytes = storage.write_bytes

    def noted(location: str, data: bytes) -> None:
        written.append(Path(location).name)
        write_bytes(location, data)

    monkeypatch.setattr(storage, "write_bytes", noted)
    other = Ledger(finished.output)
    assert len(other.write_table()) == len(other.write_table()) == 3
    assert written == []
    other.forget("b")
    assert other.write_table().names == ["a", "c"]
    assert written == ["shards.parquet"]


def test_who_has_lost_the_output_leaves_the_table_alone(finished: Ledger) -> None:
    path = Path(finished.output, "shards.parquet")
    other = AnnotateConfig(input="in", mask=MaskConfig(threshold=0.7))
    Ledger(finished.output).open(other.identity(), {}, [], redo=True)
    assert len(finished.write_table()) == 0
    assert not path.exists()


def test_a_ledger_travels_without_what_it_knows(finished: Ledger) -> None:
    finished.commits()
    there = pickle.loads(pickle.dumps(finished))
    assert len(pickle.dumps(finished)) < 2000
    assert (there.fingerprint, there.commits()) == (finished.fingerprint, finished.commits())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question whose the output is."""
    names: list[str] = []
    find = storage.find

    def noted(location: str, suffix: str = "") -> dict[str, Found]:
        names.append(Path(location).name)
        return find(location, suffix)

    monkeypatch.setattr(storage, "find", noted)
    return names


def test_a_commit_asks_once_whose_the_output_is_and_again_after_slow_tables(
    ledger: Ledger, asked: list[str], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    age(Path(ledger.output, "run.json"))
    ledger.commit(commit("a"), {"images/a.parquet": b"table"})
    ledger.commit(commit("b"), {"images/b.parquet": b"table"})
    assert (asked, read) == (["run.json"] * 2, ["run.json"])
    monkeypatch.setattr("pipeline.outputs.ledger.CHECK_SECONDS", 0.0)
    ledger.commit(commit("c"), {"images/c.parquet": b"table"})
    assert (asked, read) == (["run.json"] * 4, ["run.json"])


def test_another_run_is_noticed_however_quickly_it_came(ledger: Ledger) -> None:
    """Two files of one size and time, as on storage that has whole seconds."""
    path = Path(ledger.output, "run.json")
    ledger.check_owner(CONFIG.fingerprint())
    before = path.stat()
    other = AnnotateConfig(input="in", mask=MaskConfig(threshold=0.7))
    Ledger(ledger.output).open(other.identity(), {}, [], redo=True)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert not ledger.is_here()
    with pytest.raises(ValueError, match="has taken it over"):
        ledger.commit(commit("a"), {})
    assert ledger.committed() == set()
