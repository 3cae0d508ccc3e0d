"""What a run does again, what it only says, and what it reads to know."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from pipeline import storage
from pipeline.config import AnnotateConfig
from pipeline.inputs.shards import Shard, find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Counts, make_commit
from pipeline.run.annotation import annotate as run_annotate
from pipeline.run.annotation import print_status
from pipeline.run.plan import Plan, plan
from pipeline.run.progress import print_plan
from pipeline.run.run import run_shards
from pipeline.run.worker import MakeWorker
from pipeline.storage import json_files
from tests.pipeline.stand_ins import Annotate, MakeConfig, Tree, Write, results

COUNTS = Counts(samples=2, statuses={}, rejects={}, prompts=0, prompts_cut=0, masks=0)
MADE = AnnotateConfig().fingerprint()
SHARDS = [Shard(f"/in/{name}.tar", f"/in/{name}.tar", 10, "7") for name in "abcd"]


@pytest.fixture
def ledger(make_config: MakeConfig) -> Ledger:
    ledger = Ledger(make_config().output)
    ledger.open(AnnotateConfig().identity(), {}, [])
    return ledger


def commit(ledger: Ledger, *shards: Shard) -> None:
    for shard in shards:
        ledger.commit(make_commit(shard, MADE, COUNTS, {}, seconds=0.5, attempt=1), {})


def names(*shards: Shard) -> list[str]:
    return [shard.name for shard in shards]


def test_what_failed_for_a_reason_that_may_pass_is_tried_again(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c, d = SHARDS
    for shard in (a, b, c):
        ledger.fail(shard, "HTTP 503", transient=shard is not b)
    commit(ledger, c)
    planned = plan(AnnotateConfig(), ledger, SHARDS)
    assert (planned.todo, planned.transient, planned.given_up) == ([a, d], {a.name}, {b.name})
    print_plan(planned)
    assert "1 given up before" in (said := capsys.readouterr().out)
    assert "2 to do, 1 of them again after outages" in said
    assert plan(AnnotateConfig(retry_failed=True), ledger, SHARDS).todo == [a, b, d]


@pytest.fixture
def dated(ledger: Ledger) -> Callable[..., Plan]:
    """`dated(**settings)`: the plan when all but the last have been written again since."""
    commit(ledger, *SHARDS)
    touched = [*(replace(shard, modified="8") for shard in SHARDS[:3]), SHARDS[3]]

    def planned(**settings: str) -> Plan:
        return plan(AnnotateConfig(**settings), ledger, touched)  # type: ignore[arg-type]

    return planned


def test_another_date_alone_is_said_and_forces_nothing(
    dated: Callable[..., Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    planned = dated()
    assert (planned.todo, planned.dated, planned.again) == ([], names(*SHARDS[:3]), {})
    print_plan(replace(planned, dated=[*planned.dated, "more"]))
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "date" in x)
    assert line.startswith("4 shards have another date than when they were done, but the same size")
    assert SHARDS[0].name in line and line.endswith(", …): --on_changed redo does them again")


def test_another_date_is_a_reason_where_that_is_asked_for(dated: Callable[..., Plan]) -> None:
    planned = dated(on_changed="redo")
    assert names(*planned.todo) == names(*SHARDS[:3]) == list(planned.again)
    assert planned.dated == [] and planned.known.names == names(SHARDS[3])


def test_of_dates_that_are_not_known_nothing_is_said(ledger: Ledger) -> None:
    """As of commits of before there were dates, and of servers that tell none."""
    a, b = replace(SHARDS[0], modified=""), SHARDS[1]
    commit(ledger, a, b)
    planned = plan(AnnotateConfig(on_changed="redo"), ledger, [SHARDS[0], replace(b, modified="")])
    assert planned.todo == planned.dated == []


@pytest.fixture
def finished(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate
) -> AnnotateConfig:
    """A run of two shards."""
    config = make_config(input=write_shards(a=good, b=good))
    annotate(config)
    return config


def test_a_shard_that_is_copied_keeps_its_tables(
    finished: AnnotateConfig, annotate: Annotate, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other dates; those that are asked to be done again have the same bytes, too."""
    before = tree(finished.output)
    first, second = find_shards(finished.patterns)
    os.utime(first.location, ns=(0, 10**18))
    annotate(finished)
    assert (
        f"1 shards have another date than when they were done, but the same size ({first.name})"
        in (capsys.readouterr().out)
    )
    after = tree(finished.output)
    assert after[f"commits/{first.name}.json"] == before[f"commits/{first.name}.json"]
    ledger = annotate(replace(finished, on_changed="redo"))
    assert f"done again: {first.name}: it has another date" in capsys.readouterr().out
    assert [c.modified for c in ledger.commits()] == [str(10**18), second.modified]
    assert results(tree(finished.output)) == results(before)
    annotate(finished)
    assert "date" not in capsys.readouterr().out


@pytest.fixture
def damaged(finished: AnnotateConfig) -> tuple[str, str]:
    """A byte of a table is another one: the name of its shard, and its path below the output."""
    name = find_shards(finished.patterns)[1].name
    path = Path(finished.output, "images", f"{name}.parquet")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    return name, f"images/{name}.parquet has other contents than were committed"


def test_contents_are_verified_and_what_is_damaged_is_done_again(
    finished: AnnotateConfig,
    damaged: tuple[str, str],
    annotate: Annotate,
    tree: Tree,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, wrong = damaged
    before = results(tree(finished.output))
    annotate(finished)
    assert "done again" not in capsys.readouterr().out, "sizes are compared, contents are not"
    annotate(replace(finished, verify=True))
    said = capsys.readouterr().out
    assert "verified 2 of 2 shards, 1 damaged" in said and f"done again: {name}: {wrong}" in said
    after = results(tree(finished.output))
    assert [path for path in before if before[path] != after[path]] == [f"images/{name}.parquet"]
    annotate(replace(finished, verify=True))
    assert "verified 2 of 2 shards, 0 damaged" in capsys.readouterr().out


def test_contents_are_verified_without_doing_anything(
    finished: AnnotateConfig, damaged: tuple[str, str], tree: Tree,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name, wrong = damaged
    before = tree(finished.output)
    run_annotate(replace(finished, verify=True, dry_run=True))
    assert f"done again: {name}: {wrong}" in capsys.readouterr().out
    print_status(finished.output, thorough=True)
    said = capsys.readouterr().out
    assert f"damaged: {name}: {wrong}" in said and "2 of 2" in said
    assert tree(finished.output) == before


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "bytes"),
    ],
)
def test_tables_that_are_gone_or_cut_are_damaged(
    finished: AnnotateConfig, spoil: Callable[[Path], object], says: str
) -> None:
    ledger = Ledger(finished.output)
    first, second = ledger.commits()
    spoil(Path(finished.output, "annotations", f"{first.shard}.parquet"))
    assert ledger.damage(first).endswith(says) and ledger.damage(second) == ""


OF_A_RUN = 16
"""Questions whose the output is, from the plan to the summary, however many shards there are."""


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled from the start: nothing is read again because it is young."""
    monkeypatch.setattr(json_files, "SETTLES", -(10**12))


@pytest.mark.usefixtures("settled")
def test_requests_of_a_run_on_s3(
    requests: list[str], good: bytes, make_config: MakeConfig, annotate: Annotate
) -> None:
    """A shard: its lookup and its bytes, whose the output is; two tables and a record."""
    count = 6
    for number in range(count):
        storage.write_bytes(f"s3://data/in/{number}.tar", good)
    config = make_config(input="s3://data/in", output="s3://data/out")
    Ledger(config.output).open(config.identity(), {}, [])
    requests.clear()
    ledger = annotate(config)
    seen = [line.split()[:2] for line in requests]
    done = ledger.committed()
    of_shards = [(verb, path) for verb, path in seen if any(f"/{name}." in path for name in done)]
    assert [verb for verb, _ in of_shards] == ["PUT"] * 3 * count, "and the driver reads no commit"
    inputs = [verb for verb, path in seen if path.startswith("/data/in/")]
    owners = [verb for verb, path in seen if path == "/data/out/run.json"]
    assert (inputs.count("HEAD"), inputs.count("GET")) == (count, count)
    assert set(owners) == {"HEAD", "GET"} and len(owners) <= count + OF_A_RUN


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    ("count", "most"), [(1200, 20), pytest.param(10_000, 60, marks=pytest.mark.long)]
)
def test_requests_of_status_and_of_a_run_with_nothing_to_do_on_s3(
    requests: list[str], make_config: MakeConfig, make_worker: MakeWorker,
    count: int, most: int, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A listing for every thousand commits, and a few small files; no commit."""
    ledger = Ledger("s3://data/out")
    ledger.open(AnnotateConfig().identity(), {}, [])
    put = partial(get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].put_object, "data")
    shards = [Shard(f"/in/{n:05}.tar", f"/in/{n:05}.tar", 10, "7") for n in range(count)]
    for shard in shards:
        text = json.dumps(asdict(make_commit(shard, MADE, COUNTS, {}, seconds=0.5, attempt=1)))
        key = f"out/commits/{shard.name}.json"
        put(key, text.encode())
        ledger.report(text)
    ledger.summarise(names(*shards), commits=ledger.write_table())
    requests.clear()
    print_status(ledger.output)
    assert f"{count:,} of {count:,}" in capsys.readouterr().out
    assert len(requests) <= most, requests
    again = Ledger(ledger.output)
    again.open(AnnotateConfig().identity(), {}, [])
    requests.clear()
    run_shards(make_config(), again, shards, make_worker, again.write_categories)
    assert len(requests) <= most + 10, requests
