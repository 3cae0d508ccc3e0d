"""A run of some length whose web server and object store fail again and again."""

from __future__ import annotations

from tests.chaos import s3, web
from tests.chaos.cases import LIMIT, Case
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble
from tests.faulty import Fault, FaultyProxy

OUTAGES, SHORTEST, LONGEST = 10, 5.0, 60.0
"""How many, and seconds."""
SHARDS = 200


@kind("200 shards through 10 outages of 5 to 60 s", "2", repeats=1)
def ten_outages(case: Case) -> None:
    case.bench.make_input(case.input, SHARDS)
    case.count = SHARDS
    case.trouble = Trouble(seconds=0.1)
    case.settings += ["--engine.log_seconds", "5"]
    with web.served(case) as reading, s3.served(case, "output") as writing:
        drive = case.start()
        lengths = [case.draw.uniform(SHORTEST, LONGEST) for _ in range(OUTAGES)]
        for number, seconds in enumerate(lengths):
            done = SHARDS * (number + 1) // (OUTAGES + 2)
            drive.says(rf"^({done}|{'|'.join(map(str, range(done + 1, SHARDS)))}) of", LIMIT)
            case.hit()
            _outage(case, [reading, writing][number % 2], seconds)
        assert drive.wait(2 * LIMIT) == 0, drive.log
        assert "given up: " not in drive.log and "--retry_failed" in drive.log
        case.must_say("the storage is there again, after .* s")
        case.check()


def _outage(case: Case, proxy: FaultyProxy, seconds: float) -> None:
    """Of one of three sorts, until it is over."""
    fault = Fault(case.draw.choice(["status", "drop", "reset"]), seconds=seconds)
    proxy.add(fault)
    proxy.sleep(seconds)
    proxy.heal()
