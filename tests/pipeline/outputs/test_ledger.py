"""Commits, failures, and whose results an output holds."""

import errno
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.config import AnnotateConfig, MaskConfig, ModelConfig, PromptConfig
from pipeline.errors import ConfigError
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit, Failure, Summary, file_record

CONFIG = AnnotateConfig(input="in")
SHARD = Shard("/data/a.tar", "/data/a.tar", 10)


def commit(shard: str = SHARD.name, **fields: object) -> Commit:
    made = Commit(
        shard=shard,
        fingerprint=CONFIG.fingerprint(),
        uri="/data/a.tar",
        bytes=10,
        samples=4,
        statuses={"annotated": 2, "empty": 1, "rejected": 1},
        rejects={"undecodable": 1},
        prompts=5,
        prompts_cut=1,
        masks=3,
        files={"annotations/a.parquet": file_record(b"table")},
        seconds=0.25,
        attempt=1,
        degraded=False,
        incomplete="",
    )
    return replace(made, **fields)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(str(tmp_path / "out"))
    made.open(CONFIG.identity(), asdict(CONFIG), [{"id": 3, "name": "собака"}])
    return made


def test_an_output_says_how_it_was_made(ledger: Ledger) -> None:
    run = json.loads(Path(ledger.output, "run.json").read_text())
    assert run["fingerprint"] == CONFIG.fingerprint()
    assert run["results"] == ledger.identity() == json.loads(json.dumps(CONFIG.identity()))
    assert run["config"]["input"] == "in"
    assert set(run["versions"]) >= {"torch", "pyarrow", "pycocotools"}
    categories = json.loads(Path(ledger.output, "categories.json").read_text())
    assert categories == [{"id": 3, "name": "собака"}]


def test_a_commit_is_read_as_it_was_written(ledger: Ledger) -> None:
    assert ledger.committed() == set()
    ledger.commit(commit(), {"annotations/a.parquet": b"table"})
    assert ledger.committed() == {SHARD.name}
    assert ledger.commits() == [commit()]
    assert Path(ledger.output, "annotations/a.parquet").read_bytes() == b"table"


def test_a_failure_is_recorded_until_the_shard_is_committed(ledger: Ledger) -> None:
    ledger.fail(SHARD, "cut short")
    assert ledger.failures() == {SHARD.name: "cut short"}
    assert ledger.summary().missing == [SHARD.name]
    ledger.commit(commit(), {})
    assert ledger.failures() == {}
    assert ledger.summary().missing == []


def test_only_the_driver_takes_the_record_of_a_failure_away(ledger: Ledger) -> None:
    other = Shard("b", "b", 1)
    for shard in (SHARD, other):
        ledger.fail(shard, "cut short")
    ledger.commit(commit(), {})
    folder = Path(ledger.output, "failed")
    assert len(list(folder.iterdir())) == 2
    ledger.forgive({SHARD.name, "never-there"})
    assert [path.stem for path in folder.iterdir()] == [other.name]


def test_a_failure_says_whether_it_may_pass(ledger: Ledger) -> None:
    """Records of before there were kinds are permanent."""
    shards = [Shard(name, name, 1) for name in "abc"]
    ledger.fail(shards[0], "HTTP 503", transient=True)
    ledger.fail(shards[1], "cut short")
    ledger.fail(shards[2], "of old")
    old = Path(ledger.output, "failed", f"{shards[2].name}.json")
    record = json.loads(old.read_text())
    assert record.pop("kind") == "permanent"
    old.write_text(json.dumps(record))
    assert ledger.given_up() == {
        shards[0].name: Failure("HTTP 503", transient=True),
        shards[1].name: Failure("cut short"),
        shards[2].name: Failure("of old"),
    }
    assert ledger.failures()[shards[0].name].startswith("HTTP 503 (transient: ")


def test_a_commit_can_be_taken_back(ledger: Ledger) -> None:
    ledger.commit(commit(), {f"counts/{SHARD.name}.parquet": b"table"})
    ledger.forget([SHARD.name, "never-there"])
    assert ledger.committed() == set()
    assert not list(Path(ledger.output, "counts").iterdir())


@pytest.mark.parametrize("where", ["a folder", "a bucket"])
def test_records_that_vanish_while_they_are_read_are_left_out(
    where: str, ledger: Ledger, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "a bucket":
        request.getfixturevalue("bucket")
        ledger = Ledger("s3://data/out")
    failed = [Shard(f"/data/{name}.tar", f"/data/{name}.tar", 10) for name in "xy"]
    for name, shard in zip("ab", failed, strict=True):
        ledger.commit(commit(name), {})
        ledger.fail(shard, "cut short")
    list_files = storage.list_files
    ledger = Ledger(ledger.output)  # to which nobody has told what was committed

    def listed(location: str) -> dict[str, storage.Found]:
        files = list_files(location)
        for name in [*files][:1]:
            storage.remove(storage.join(location, name))
        monkeypatch.setattr(storage, "list_files", list_files)
        return files

    monkeypatch.setattr(storage, "list_files", listed)
    assert ledger.failures() == {failed[1].name: "cut short"}
    monkeypatch.setattr(storage, "list_files", listed)
    assert ledger.commits() == [commit("b")]


def test_the_same_configuration_goes_on(ledger: Ledger) -> None:
    before = Path(ledger.output, "run.json").read_bytes()
    same = replace(CONFIG, output="elsewhere", allow_failed=3)
    ledger.open(same.identity(), asdict(same), [])
    assert Path(ledger.output, "run.json").read_bytes() == before


def test_long_settings_are_cut_in_messages(ledger: Ledger) -> None:
    names = [f"name {number}" for number in range(1000)]
    other = replace(CONFIG, prompts=PromptConfig(templates=["{}", *(f"{n} {{}}" for n in names)]))
    (change,) = ledger.changes(other.identity())
    assert change.startswith("prompts.templates: ['a photo of a {}.'] there, ['{}', 'name 0 {}'")
    assert change.endswith("… now") and len(change) < 300


def test_another_configuration_is_refused_with_its_differences(ledger: Ledger) -> None:
    other = replace(
        CONFIG,
        layers=[1, 2],
        mask=MaskConfig(threshold=0.7),
        model=ModelConfig(precision="float16"),
    )
    assert ledger.changes(other.identity()) == [
        "layers: None there, [1, 2] now",
        "mask.threshold: 0.5 there, 0.7 now",
        "model.precision: 'float32' there, 'float16' now",
    ]
    ledger.commit(commit(), {})
    with pytest.raises(ConfigError, match=r"mask\.threshold: 0\.5 there, 0\.7 now.*--on_mismatch"):
        ledger.open(other.identity(), asdict(other), [])
    assert ledger.committed() == {SHARD.name}


def test_commits_of_another_configuration_are_refused_without_run_json_too(ledger: Ledger) -> None:
    ledger.commit(commit(), {})
    Path(ledger.output, "run.json").unlink()
    other = replace(CONFIG, layers=[1, 2])
    with pytest.raises(ConfigError, match=f"fingerprint: '?{CONFIG.fingerprint()}'? there"):
        ledger.open(other.identity(), asdict(other), [])
    ledger.open(CONFIG.identity(), asdict(CONFIG), [])
    assert ledger.committed() == {SHARD.name}
    assert ledger.identity()


def test_redo_starts_over(ledger: Ledger, tree: Callable[[str], dict[str, bytes]]) -> None:
    tables = ("annotations/a.parquet", "images/a.parquet", "counts/a.parquet")
    ledger.commit(commit(), dict.fromkeys(tables, b"table"))
    ledger.fail(Shard("b", "b", 1), "broken")
    other = replace(CONFIG, layers=2)
    ledger.open(other.identity(), asdict(other), [], redo=True)
    assert set(tree(ledger.output)) == {"run.json", "categories.json"}
    assert ledger.changes(other.identity()) == []


def test_redo_of_the_same_configuration_keeps_what_is_done(ledger: Ledger) -> None:
    ledger.commit(commit(), {})
    ledger.open(CONFIG.identity(), asdict(CONFIG), [], redo=True)
    assert ledger.committed() == {SHARD.name}


def test_totals() -> None:
    commits = [
        commit("a"),
        commit("b", statuses={"annotated": 4}, rejects={}, incomplete="cut short"),
    ]
    assert Summary.of(commits, {"d", "c"}, "stopped") == Summary(
        state="stopped",
        planned=4,
        shards=2,
        missing=["c", "d"],
        samples=8,
        statuses={"annotated": 6, "empty": 1, "rejected": 1},
        rejects={"undecodable": 1},
        prompts=10,
        prompts_cut=2,
        masks=6,
        degraded=0,
        incomplete={"b": "cut short"},
        seconds=0.5,
    )


def test_a_summary_is_over_the_shards_asked_for(ledger: Ledger) -> None:
    for name in "ab":
        ledger.commit(commit(name), {})
    summary = ledger.summarise(["b", "c"])
    assert (summary.shards, summary.missing) == (1, ["c"])
    written = json.loads(Path(ledger.output, "summary.json").read_text())
    assert written == asdict(summary)


def test_known_commits_are_not_read_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        ledger.commit(commit(name), {})
    assert len(ledger.commits()) == 3
    ledger.commit(commit("d"), {})
    ledger.forget(["a"])
    asked: list[str] = []
    read = storage.read_bytes

    def counted(location: str) -> bytes:
        asked.append(Path(location).name)
        return read(location)

    monkeypatch.setattr(storage, "read_bytes", counted)
    assert [c.shard for c in ledger.commits()] == ["b", "c", "d"]
    assert asked == []
    assert [c.shard for c in Ledger(ledger.output).commits()] == ["b", "c", "d"]
    assert sorted(asked) == ["b.json", "c.json", "d.json", "run.json", "shards.parquet"]


def test_an_output_without_a_run_is_empty(tmp_path: Path) -> None:
    nothing = Ledger(str(tmp_path / "none"))
    assert nothing.committed() == set() and nothing.failures() == {} and nothing.identity() == {}
    assert nothing.summary() == Summary.of([], (), "finished")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", ["[]", "7", "{}", '{"shard": "a"}', "nonsense"])
def test_a_commit_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    ledger = Ledger(str(tmp_path / "out"))
    (tmp_path / "out" / "commits").mkdir(parents=True)
    (tmp_path / "out" / "commits" / "a.json").write_text(content)
    with pytest.raises(ConfigError, match=r"commits/a.json: damaged \(.*\); delete it, and run"):
        ledger.commits()


def test_a_run_of_a_later_release_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"))
    ledger.open(AnnotateConfig().identity(), {}, [])
    path = tmp_path / "out" / "run.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    with pytest.raises(ConfigError, match="has schema version 99, and this release knows up to 2"):
        ledger.identity()


def test_a_failure_that_cannot_be_written_is_said_and_known(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(ledger.output, "failed", f"{SHARD.name}.json")
    place.mkdir(parents=True)  # what no user may write to, root included
    ledger.fail(SHARD, "cut short")
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(rf"not recorded: {SHARD.name}: IsADirectoryError: .*; the next run tries", line)
    assert ledger.failures() == {SHARD.name: "cut short"} and not Ledger(ledger.output).failures()
    place.rmdir()
    ledger.fail(SHARD, "cut short again")
    assert Ledger(ledger.output).failures() == ledger.failures() == {SHARD.name: "cut short again"}


@pytest.mark.parametrize(("number", "passes"), [(errno.EACCES, False), (errno.EIO, True)])
def test_a_record_that_may_not_be_removed_is_said(
    ledger: Ledger,
    number: int,
    passes: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger.fail(SHARD, "cut short")
    ledger.commit(commit(), {"annotations/a.parquet": b"table"})

    def refuse(location: str) -> None:
        raise OSError(number, "so it is", location)

    monkeypatch.setattr(storage, "remove", refuse)
    if passes:
        with pytest.raises(OSError, match="so it is"):
            ledger.forgive(ledger.committed())
    else:
        ledger.forgive(ledger.committed())
    assert (f"not removed: failed/{SHARD.name}.json" in capsys.readouterr().out) is not passes
    assert not ledger.failures()


def test_a_failure_that_cannot_be_written_now_is_to_be_written_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(location: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", location)

    monkeypatch.setattr(storage, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.fail(SHARD, "cut short")
    assert not ledger.failures()


@pytest.mark.parametrize("content", ["{}", "[]", '{"missing": 1}'])
def test_a_summary_that_names_nothing_is_one_line(ledger: Ledger, content: str) -> None:
    Path(ledger.output, "summary.json").write_text(content)
    with pytest.raises(ConfigError, match=r"summary\.json: damaged"):
        ledger.left()
