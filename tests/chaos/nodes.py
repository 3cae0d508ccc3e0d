"""Nodes that go, come, or come and go."""

from __future__ import annotations

import time

from tests.chaos.cases import LIMIT, Case
from tests.chaos.drives import until
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble
from tests.chaos.workers import on_ray

LOST = r"^lost: a worker with its node, .*; tried again, which is no attempt: s"
WAITS = "waiting for the start of workers, each of which needs a CPU: 2"


def a_node(case: Case, kind: str = "busy") -> str:
    """One with a worker that was given shards; `held`: that has one now."""

    def found() -> set[str]:
        return set(case.workers(kind).values()) & case.bench.nodes.alive()

    until(found, LIMIT, "a node that has not been taken away has a worker at work")
    return case.draw.choice(sorted(found()))


@kind("node removed", "7", on_ray=True)
def removed(case: Case) -> None:
    on_ray(case)
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    case.wait_for(case.draw.randrange(1, 3), drive)  # and two of ten are in flight, or four
    with case.held():  # else the worker could be done with its last shard meanwhile
        time.sleep(case.draw.uniform(1, 2))
        case.bench.nodes.remove(a_node(case, "held"))
        case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(LOST)
    case.check()


@kind("raylet killed", "7", on_ray=True)
def raylet(case: Case) -> None:
    on_ray(case)
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    case.wait_for(case.draw.randrange(1, 3), drive)  # and two of ten are in flight, or four
    with case.held():  # else the worker could be done with its last shard meanwhile
        time.sleep(case.draw.uniform(1, 2))
        case.bench.nodes.kill_raylet(a_node(case, "held"))
        case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(LOST)
    case.check()


@kind("nodes that come and go, as spot nodes do", "7", on_ray=True)
def flapping(case: Case) -> None:
    on_ray(case)
    case.settings += ["--engine.max_attempts", "1"]
    case.trouble = Trouble(seconds=0.5)
    drive = case.start()
    for _ in range(3):
        until(lambda: case.workers() or drive.code is not None, LIMIT, "a worker has loaded")
        if drive.code is not None:
            break
        case.bench.nodes.remove(a_node(case))
        case.hit()
        case.bench.nodes.add()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(LOST)
    case.check()


@kind("all nodes lost, and others come", "7", on_ray=True)
def all_removed(case: Case) -> None:
    on_ray(case)
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    case.wait_for(case.draw.randrange(1, 3), drive)
    with case.held():  # else the run could end before the nodes have
        a_node(case, "held")
        for node in case.bench.nodes.alive():
            case.bench.nodes.remove(node)
        case.hit()
        drive.says(LOST, LIMIT)
        drive.says(WAITS, LIMIT)
    case.bench.nodes.complete()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(LOST)
    case.must_say(WAITS)
    case.check()


@kind("node that joins while the run works", on_ray=True)
def joins(case: Case) -> None:
    on_ray(case, workers=3)
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    case.wait_for(case.draw.randrange(1, 3), drive)
    with case.held():  # with fewer shards left than workers, none would be started there
        node = case.bench.nodes.add()
        case.hit()
        until(lambda: node in case.workers().values(), LIMIT, "the new node has a worker")
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(f"^{case.count} of {case.count} shards")
    case.check()
