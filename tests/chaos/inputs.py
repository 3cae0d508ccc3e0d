"""Input that changes, goes, or is damaged."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.cases import LIMIT, Case, shards
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble


def a_shard(case: Case) -> Path:
    """One of the input's."""
    return case.draw.choice(sorted(case.input.glob("*.tar")))


@kind("input shard replaced by one of another size", "11")
def another_size(case: Case) -> None:
    case.goes_on()
    path = a_shard(case)
    path.write_bytes(shards([path.stem], images=40)[path.stem])
    case.hit()
    case.must_say(f"^done again: {path.stem}-.* it had .* bytes, and has .* now", case.goes_on())
    case.check(expected=case.undisturbed())


@kind("input shard deleted while the run works")
def deleted(case: Case) -> None:
    drive = case.start(trouble=Trouble(seconds=0.3))
    case.wait_for_the_middle(drive)
    path = case.draw.choice(sorted(case.input.glob("*.tar"))[-3:])  # it has not been read yet
    data = path.read_bytes()
    path.unlink()
    case.hit()
    assert drive.wait(LIMIT) == 3, drive.log
    case.must_say(f"^given up: {path.stem}-")
    path.write_bytes(data)
    case.goes_on("--retry_failed")
    case.check()


@kind("input shard cut short, then mended")
def cut(case: Case) -> None:
    path = a_shard(case)
    data = path.read_bytes()
    path.write_bytes(data[: case.draw.randrange(512, len(data) * 3 // 4)])
    drive = case.start(trouble=Trouble(seconds=0.02))
    case.hit()
    assert drive.wait(LIMIT) == 3, drive.log
    case.must_say(f"^given up: {path.stem}-")
    path.write_bytes(data)
    case.goes_on("--retry_failed")
    case.check()
