"""Two drivers of one output, and results that somebody has spoiled."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.chaos.cases import LIMIT, Case
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble

LONG = Trouble(seconds=0.4)
"""No trouble, but so much to do that another driver is there before it is done."""


def whole(case: Case) -> None:
    """A run to its end, in no time."""
    case.goes_on()


def a_table(case: Case) -> Path:
    """One of those that are committed."""
    folder = case.draw.choice(["annotations", "images"])
    return case.draw.choice(sorted((case.output / folder).glob("[!.]*")))


@kind("redo with other settings beside a driver at work", row="1", repeats=50)
def redo(case: Case) -> None:
    old = case.start(trouble=LONG)
    old.says("shards: .* to do", LIMIT)  # the output is its
    case.wait_for(case.draw.randrange(case.count // 2), old)
    time.sleep(case.draw.uniform(0, LONG.seconds))
    case.hit()
    case.settings += ["--mask.threshold", "0.8"]
    new = case.start("--on_mismatch", "redo")
    assert (new.wait(LIMIT), old.wait(LIMIT)) == (0, 2), case.log
    case.must_say("another run, with other settings, has taken it over; this one stops", old)
    case.check()


@kind("second driver with the same settings")
def second(case: Case) -> None:
    first = case.start()
    case.wait_for_the_middle(first)
    with case.held():
        case.hit()
        other = case.start()
        other.says("does the same run in this output", LIMIT)
    assert (first.wait(LIMIT), other.wait(LIMIT)) == (0, 0), case.log
    case.must_say("does the same run in this output; each does what is left", other)
    case.check()


@kind("committed table deleted", row="5")
def deleted(case: Case) -> None:
    whole(case)
    a_table(case).unlink()
    case.hit()
    case.must_say("^done again: .* is gone", case.goes_on())
    case.check()


@kind("committed table cut", row="5")
def cut(case: Case) -> None:
    whole(case)
    path = a_table(case)
    data = path.read_bytes()
    path.write_bytes(data[: case.draw.randrange(len(data))])
    case.hit()
    case.must_say("^done again: .* has .* of .* bytes", case.goes_on())
    case.check()


@kind("committed table deleted while the run works", row="5")
def deleted_meanwhile(case: Case) -> None:
    drive = case.start()
    case.wait_for_the_middle(drive)
    a_table(case).unlink()
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    if "done again" not in drive.log:  # it was not committed yet, so that it was written later
        assert case.commits()
    else:
        case.must_say("^done again: .* is gone", drive)
    case.check()


@kind("run.json lost")
def no_settings(case: Case) -> None:
    drive = case.start()
    case.wait_for_the_middle(drive)
    drive.clear_away()
    (case.output / "run.json").unlink()
    case.hit()
    case.must_say(r"^\d+ shards: \d+ committed", case.goes_on())
    assert (case.output / "run.json").exists()
    case.check()


@kind("commits lost")
def no_commits(case: Case) -> None:
    whole(case)
    paths = sorted((case.output / "commits").iterdir())
    lost = case.draw.sample(paths, case.draw.randrange(1, case.count))
    for path in lost:
        path.unlink()
    case.hit()
    case.must_say(f"{case.count - len(lost)} committed.* {len(lost)} to do", case.goes_on())
    case.check()


@kind("commit cut")
def half_a_commit(case: Case) -> None:
    whole(case)
    path = case.draw.choice(sorted((case.output / "commits").iterdir()))
    data = path.read_bytes()
    path.write_bytes(data[: case.draw.randrange(len(data) - 1)])
    case.hit()
    drive = case.start()
    assert drive.wait(LIMIT) == 2, drive.log
    case.must_say(f"{path.name}.*(?:damaged|delete)", drive)
    path.unlink()
    case.goes_on()
    case.check()


@kind("index lost")
def no_index(case: Case) -> None:
    whole(case)
    for name in ("shards.parquet", "categories.json", "summary.json"):
        (case.output / name).unlink()
    case.hit()
    drive = case.goes_on()
    case.must_say(f"{case.count} committed", drive)
    assert (case.output / "shards.parquet").exists()
    case.check()


@kind("commit of other settings between one's own", row="1")
def foreign_commit(case: Case) -> None:
    whole(case)
    path = case.draw.choice(sorted((case.output / "commits").iterdir()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "another"}))
    case.hit()
    case.must_say(f"^done again: {path.stem}: other settings made it", case.goes_on())
    case.check()
