"""Shards on a web server that fails, behind a proxy that makes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.chaos.cases import LIMIT, Case, names
from tests.chaos.drives import Drive
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble
from tests.faulty import Fault, FaultyProxy, FileServer

WAITS = r"not available: "
ASKED = ("HEAD", "GET")


@contextmanager
def served(case: Case, ranges: bool = True) -> Iterator[FaultyProxy]:
    """The input of the case on a web server."""
    with FileServer(case.input) as files:
        files.ranges = ranges
        with FaultyProxy(files.address, seed=case.draw.randrange(1 << 30)) as proxy:
            case.root = proxy.address
            case.source = f"{proxy.address}/{{{','.join(names(case.count))}}}.tar"
            yield proxy


def ends_well(case: Case, drive: Drive, proxy: FaultyProxy, at_least: int = 1) -> None:
    """No shard is given up, whether a fault came to be seen or the next request made it good."""
    assert drive.wait(LIMIT) == 0, drive.log
    faults = proxy.faults()
    assert faults.total() >= at_least, f"there were no faults: {proxy.requests}"
    assert "given up: " not in drive.log
    told = [line for line in drive.log.splitlines() if "available" in line]
    case.seen += told[:3] or [f"made good by other requests: {dict(faults)}"]
    case.check()


def begin(proxy: FaultyProxy, fault: Fault) -> None:
    """Have it happen at random, and to the first request in any case."""
    if fault.count is None:
        proxy.add(replace(fault, share=1.0, count=1))
    proxy.add(fault)


def often(case: Case, fault: Fault, ranges: bool = True, at_least: int = 1) -> None:
    """A part of all requests fails, from the start to the end."""
    with served(case, ranges) as proxy:
        begin(proxy, fault)
        case.hit()
        ends_well(case, case.start(), proxy, at_least)


@kind("HTTP: 503 for a while", "2")
def unavailable(case: Case) -> None:
    with served(case) as proxy:
        drive = case.start(trouble=Trouble(seconds=0.3))
        case.wait_for_the_middle(drive)
        proxy.add(Fault("status", status=503, seconds=case.draw.uniform(9, 12)))
        case.hit()
        drive.says(WAITS, 30)
        ends_well(case, drive, proxy)
        case.must_say(WAITS)


@kind("HTTP: the server is away for a while", "2")
def away(case: Case) -> None:
    with served(case) as proxy:
        drive = case.start(trouble=Trouble(seconds=0.3))
        case.wait_for_the_middle(drive)
        case.hit()
        with proxy.unplugged():
            drive.says(WAITS, 30)
            time.sleep(case.draw.uniform(0, 4))
        assert drive.wait(LIMIT) == 0 and "given up: " not in drive.log, drive.log
        case.must_say(WAITS)
        case.check()


@kind("HTTP: 503 for a while as the run starts", "4")
def unavailable_at_first(case: Case) -> None:
    with served(case) as proxy:
        proxy.add(Fault("status", status=503, seconds=case.draw.uniform(9, 12)))
        case.hit()
        ends_well(case, case.start(), proxy)
        case.must_say(WAITS)


@kind("HTTP: one 500 on one HEAD at the start", "4")
def one_head(case: Case) -> None:
    often(case, Fault("status", status=500, method="HEAD", count=1))


@kind("HTTP: 500 for 40 % of all requests", "2")
def at_random(case: Case) -> None:
    often(case, Fault("status", status=case.draw.choice([500, 502, 503, 504, 429]), share=0.4))


@kind("HTTP: 30 % of the bodies cut, server with ranges", "2")
def cut_with_ranges(case: Case) -> None:
    often(case, Fault("cut", share=0.3, method="GET", keep=case.draw.random()))


@kind("HTTP: 30 % of the bodies cut, server without ranges", "2")
def cut_without_ranges(case: Case) -> None:
    often(case, Fault("cut", share=0.3, method="GET", keep=case.draw.random()), ranges=False)


@kind("HTTP: 30 % of the connections dropped", "2")
def dropped(case: Case) -> None:
    often(case, Fault(case.draw.choice(["drop", "reset"]), share=0.3))


@kind("HTTP: bodies that drip", "2")
def drip(case: Case) -> None:
    fault = Fault("drip", share=0.3, method="GET", drip_bytes=4096, drip_seconds=0.3)
    often(case, fault)


@kind("HTTP: a body that stalls", "2")
def stall(case: Case) -> None:
    case.patience = 4
    often(case, Fault("stall", method="GET", count=1, keep=case.draw.random()))
    case.must_say(WAITS)
