"""What only a closer look finds: other contents of the same size; and failures that may pass."""

from __future__ import annotations

import random

from tests.chaos import web
from tests.chaos.cases import IMAGES, LIMIT, Case, shards
from tests.chaos.inputs import a_shard
from tests.chaos.kinds import kind
from tests.chaos.ownership import a_table
from tests.chaos.stand_ins import Trouble
from tests.faulty import Fault


@kind("committed table with other bytes of the same number", "5")
def flipped(case: Case) -> None:
    case.goes_on()
    path = a_table(case)
    data = bytearray(path.read_bytes())
    data[case.draw.randrange(len(data))] ^= 1 << case.draw.randrange(8)
    path.write_bytes(data)
    case.hit()
    drive = case.goes_on("--verify")
    case.must_say(f"^done again: {path.stem}: .* has other contents than were committed", drive)
    case.check()


@kind("index cut or of another output")
def spoiled_index(case: Case) -> None:
    case.goes_on()
    path = case.output / "shards.parquet"
    data = path.read_bytes()
    spoiled = [data[: case.draw.randrange(len(data))], random.Random(0).randbytes(len(data))]
    path.write_bytes(case.draw.choice(spoiled))
    lost = case.draw.choice(sorted((case.output / "commits").iterdir()))
    lost.unlink()
    case.hit()
    case.must_say(f"^{case.count} shards: {case.count - 1} committed.* 1 to do", case.goes_on())
    case.check()


@kind("input shard replaced by one of the same size", "11")
def same_size(case: Case) -> None:
    case.goes_on()
    path = a_shard(case)
    size = path.stat().st_size
    path.write_bytes(shards([path.stem], first=IMAGES)[path.stem])  # with other keys
    assert path.stat().st_size == size
    case.hit()
    said = "^1 shards have another date than when they were done, but the same size"
    case.must_say(said, case.goes_on())
    case.must_say(f"^done again: {path.stem}-.*another date", case.goes_on("--on_changed", "redo"))
    case.check(expected=case.undisturbed())


@kind("outage that is longer than the run waits: the same command tries again", "2")
def too_long(case: Case) -> None:
    with web.served(case) as proxy:
        case.settings += ["--engine.patience_seconds", "3"]
        drive = case.start(trouble=Trouble(seconds=0.3))
        case.wait_for_the_middle(drive)
        proxy.add(Fault("status", status=503))
        case.hit()
        assert drive.wait(LIMIT) == 3, drive.log
        case.must_say("^the storage has not been there for 3 s .*: this run ends, the same command")
        proxy.heal()
        case.must_say("to do, [0-9]+ of them again after outages", case.goes_on())
        case.check()
