"""Drivers that are killed or told to stop, and the head of a cluster that dies."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.cases import LIMIT, Case
from tests.chaos.drives import until
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble
from tests.chaos.workers import on_ray

ANSWER = 2.0
"""Seconds in which a signal is answered in words: one, and one for a machine that is busy."""
STOPPED = "^annotate.py: stopped; the same command goes on"
STOPPING = "Stopping, as told"


def killed(case: Case) -> None:
    """Kill the driver; `--status` says what became of it, and the same command goes on."""
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    case.wait_for_the_middle(drive)
    drive.signal(signal.SIGKILL)
    case.hit()
    assert drive.wait(30) == -signal.SIGKILL
    case.wait_until_quiet()
    kept = case.commits()
    status = case.status()
    line = f"the last run: running (process {drive.pid} on {os.uname().nodename}"
    assert line in status and "last sign of life" in status, status
    case.seen.append(next(text for text in status.splitlines() if line in text))
    case.must_say(f"{len(kept)} committed", case.goes_on())
    case.check()


def stopped(case: Case, number: int, seconds: float = 0.3) -> None:
    """Tell the driver to stop: it answers, and soon ends with 143."""
    case.trouble = Trouble(seconds=seconds)
    drive = case.start()
    case.wait_for_the_middle(drive)
    drive.signal(number)
    case.hit()
    drive.says(STOPPING, ANSWER)
    assert drive.wait(30) == 143, drive.log
    case.must_say(STOPPING)
    case.must_say(STOPPED)
    case.wait_until_quiet()
    kept = len(case.commits())
    assert "the last run: stopped" in (status := case.status()), status
    case.must_say(f"{kept} committed", case.goes_on())
    case.check()


@kind("driver killed with kill -9, local", "6")
def killed_locally(case: Case) -> None:
    killed(case)


@kind("driver killed with kill -9, on Ray", "6", on_ray=True)
def killed_on_ray(case: Case) -> None:
    on_ray(case)
    killed(case)


@kind("SIGTERM to the driver, local", "10")
def terminated_locally(case: Case) -> None:
    stopped(case, signal.SIGTERM)


@kind("SIGINT to the driver, local", "10")
def interrupted_locally(case: Case) -> None:
    stopped(case, signal.SIGINT)


@kind("SIGTERM to the driver in a batch of 4 s, local", "10")
def terminated_in_a_long_batch(case: Case) -> None:
    case.trouble = Trouble(seconds=4)
    drive = case.start()
    drive.says("^0 of", LIMIT)
    time.sleep(case.draw.uniform(0.5, 2))
    drive.signal(signal.SIGTERM)
    case.hit()
    drive.says(STOPPING, ANSWER)
    assert drive.wait(30) == 143, drive.log
    case.must_say(STOPPING)
    case.must_say(STOPPED)
    case.goes_on()
    case.check()


@kind("SIGTERM to the driver, on Ray", "10", on_ray=True)
def terminated_on_ray(case: Case) -> None:
    on_ray(case)
    stopped(case, signal.SIGTERM)


@kind("SIGINT to the driver, on Ray", "10", on_ray=True)
def interrupted_on_ray(case: Case) -> None:
    on_ray(case)
    stopped(case, signal.SIGINT)


@kind("SIGTERM to the driver while the models load, on Ray", "10", on_ray=True)
def terminated_while_loading(case: Case) -> None:
    on_ray(case)
    case.trouble = Trouble(loading="sleep", times=None)
    drive = case.start()
    case.wait_for_loading(drive)
    time.sleep(case.draw.uniform(0, 1))
    drive.signal(signal.SIGTERM)
    case.hit()
    drive.says(STOPPING, ANSWER)
    assert drive.wait(30) == 143, drive.log
    case.must_say(STOPPING)
    case.must_say(STOPPED)
    until(lambda: not case.workers("loading"), 30, "its workers end")
    case.executor = "local"
    case.goes_on()
    case.check()


@kind("control store of the cluster (GCS) killed", "6", on_ray=True)
def head_killed(case: Case) -> None:
    from tests.chaos.cluster import Nodes  # takes seconds, which only such cases should need

    nodes = Nodes(case.bench.zygote.environment)
    try:
        on_ray(case, nodes=nodes)
        case.trouble = Trouble(seconds=0.5)
        drive = case.start()
        case.wait_for_the_middle(drive)
        nodes.kill_head()
        case.hit()
        code = drive.wait(LIMIT)
    finally:
        nodes.close()
    if code != 0:  # the rest of it could not be done
        status = case.status()
        assert "last sign of life" in status or "the last run: stopped" in status, status
        case.seen.append(status.splitlines()[0])
        case.wait_until_quiet()
        case.executor = "local"
        case.goes_on()
    else:
        case.must_say(f"^{case.count} of {case.count} shards")
    case.check()
