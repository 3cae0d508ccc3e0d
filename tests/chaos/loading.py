"""Models that do not load: once, always, on one node; and what is not there to load them on."""

from __future__ import annotations

import signal
import time

from tests.chaos.cases import LIMIT, Case
from tests.chaos.drivers import ANSWER, STOPPING
from tests.chaos.drives import until
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble
from tests.chaos.workers import STALL, on_ray

SOON = 100.0
"""Seconds after which a run whose model loads nowhere has to have ended."""


def once(case: Case, what: str) -> None:
    """The first model does not load; another worker's does, and has enough to do until then."""
    on_ray(case)
    case.trouble = Trouble(loading=what, seconds=1.5)
    drive = case.start()
    until((case.work / "trouble-loading-0").exists, LIMIT, f"{what} while it loads")
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say("^the model did not load on .*, time 1: the worker died")
    case.check()


def always(case: Case, what: str, says: str) -> None:
    """It loads nowhere: the command ends soon, and goes on when that is mended."""
    on_ray(case)
    case.trouble = Trouble(loading=what, times=None)
    drive = case.start()
    case.wait_for_loading(drive)
    case.hit()
    assert drive.wait(SOON) == 2, drive.log
    case.must_say(says)
    case.executor = "local"
    case.goes_on()
    case.check()


@kind("worker dies while it loads the model", "3", on_ray=True)
def dies_once(case: Case) -> None:
    once(case, case.draw.choice(["exit", "segfault", "kill"]))


@kind("worker hangs while it loads the model", "3", on_ray=True)
def hangs_once(case: Case) -> None:
    case.settings += STALL
    once(case, case.draw.choice(["sleep", "hold"]))


@kind("every worker dies while it loads the model", "3", on_ray=True)
def dies_always(case: Case) -> None:
    always(case, "exit", "^annotate.py: the model did not load, 3 times: the worker died")


@kind("every worker hangs while it loads the model", "3", on_ray=True)
def hangs_always(case: Case) -> None:
    case.settings += STALL
    always(case, "sleep", "^annotate.py: the model did not load, 3 times: the worker died")


@kind("model that raises while it loads", on_ray=True)
def raises_always(case: Case) -> None:
    always(case, "raise", "^annotate.py: it cannot be done")


@kind("broken node, whose every load fails, beside a healthy one", "3", on_ray=True)
def broken_node(case: Case) -> None:
    on_ray(case)
    broken = case.draw.choice(sorted(case.bench.nodes.alive()))
    what = case.draw.choice(["exit", "raise"])
    case.trouble = Trouble(loading=what, times=None, node=broken, seconds=2.5)
    with case.held():  # or the healthy one has done all by then
        drive = case.start()
        until((case.work / "trouble-loading-0").exists, LIMIT, "a load fails")
        case.hit()
        drive.says("^left out: ", LIMIT)
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say("^left out: .*, where the model does not load: ")
    case.check()


@kind("GPU that does not exist, and SIGTERM", "10", on_ray=True)
def no_gpu(case: Case) -> None:
    on_ray(case)
    drive = case.start("--engine.device", "cuda")
    waits = "waiting for the start of workers, each of which needs a GPU: 2"
    drive.says(waits, LIMIT)
    case.must_say(waits)
    time.sleep(case.draw.uniform(0, 2))
    case.hit()
    drive.signal(signal.SIGTERM)
    drive.says(STOPPING, ANSWER)
    assert drive.wait(20) == 143, drive.log
    case.executor = "local"
    case.goes_on()
    case.check()


@kind("RAY_ADDRESS where no cluster answers", "10", on_ray=True)
def dead_address(case: Case) -> None:
    on_ray(case)
    alive = case.environment["RAY_ADDRESS"]
    case.environment["RAY_ADDRESS"] = f"127.0.0.1:{case.draw.randrange(1, 9)}"
    case.hit()
    drive = case.start()
    assert drive.wait(30) == 2, drive.log
    case.must_say("no cluster answers there .*; start it, or unset RAY_ADDRESS")
    case.environment["RAY_ADDRESS"] = alive
    case.goes_on()
    case.check()
