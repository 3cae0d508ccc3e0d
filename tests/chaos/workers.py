"""Workers that die or hang, once or always with a shard; on Ray: a local run dies with them."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from tests.chaos.cases import LIMIT, Case
from tests.chaos.drives import until
from tests.chaos.kinds import kind
from tests.chaos.stand_ins import Trouble

if TYPE_CHECKING:
    from tests.chaos.cluster import Nodes

DIED = r"^(died: a worker on .*; each is tried alone|failed: s.*its worker died)"
IDLE_DIED = "^died: a worker on .*, which had no shard"
STALL = ("--engine.stall_seconds", "6")


def on_ray(case: Case, workers: int = 2, nodes: Nodes | None = None) -> None:
    """Have the case done by actors of a cluster: the shared one, if no other is named."""
    nodes = nodes or case.bench.nodes
    nodes.complete()
    case.executor = "ray"
    case.environment["RAY_ADDRESS"] = nodes.address
    case.settings += ["--engine.workers", str(workers)]


def once(case: Case, what: str) -> None:
    """One worker has a trouble, at a shard that is drawn; the run does it again."""
    on_ray(case)
    shard = f"s{case.draw.randrange(case.count):03}"
    case.trouble = Trouble(shards={shard: what})
    drive = case.start()
    until((case.work / f"trouble-{shard}-0").exists, LIMIT, f"trouble: {what}")
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(DIED)
    case.check()


@kind("worker ends by os._exit", on_ray=True)
def exits(case: Case) -> None:
    once(case, "exit")


@kind("worker ends by a segfault", on_ray=True)
def segfaults(case: Case) -> None:
    once(case, "segfault")


@kind("worker leaks until it is killed", on_ray=True)
def leaks(case: Case) -> None:
    once(case, "leak")


@kind("worker hangs, asleep", on_ray=True)
def sleeps(case: Case) -> None:
    case.settings += STALL
    once(case, "sleep")


@kind("worker hangs and holds the interpreter", on_ray=True)
def holds(case: Case) -> None:
    case.settings += STALL
    once(case, "hold")


@kind("worker killed with kill -9 at a random moment", on_ray=True)
def killed(case: Case) -> None:
    on_ray(case)
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    case.wait_for_the_middle(drive)
    os.kill(case.draw.choice(sorted(case.workers())), signal.SIGKILL)
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(DIED)
    case.check()


@kind("shard that raises twice: the workers keep their models", "9", on_ray=True)
def kept(case: Case) -> None:
    on_ray(case)
    shard = f"s{case.draw.randrange(case.count):03}"
    case.trouble = Trouble(shards={shard: "raise"}, times=2)
    drive = case.start()
    until((case.work / f"trouble-{shard}-0").exists, LIMIT, "it raises")
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(f"^failed: {shard}-.*: {REASONS['raise']}")
    assert len(list((case.work / "loading").iterdir())) <= 2
    case.check()


@kind("workers killed again and again", "3", on_ray=True)
def decimated(case: Case) -> None:
    on_ray(case)
    case.trouble = Trouble(seconds=0.3)
    drive = case.start()
    for _ in range(3):
        until(lambda: case.workers() or drive.code is not None, LIMIT, "a worker has loaded")
        time.sleep(case.draw.uniform(0, 0.5))
        killed = case.workers().keys()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        case.hit()
        until(lambda killed=killed: not killed & case.workers().keys(), LIMIT, "they are dead")
    code = drive.wait(LIMIT)
    case.must_say(f"{DIED}|{IDLE_DIED}|^the model did not load on ")
    if code == 3:  # a shard that was alone on all of them may have been taken for the cause
        case.must_say("^given up: .*its worker died")
        case.executor = "local"
        case.goes_on("--retry_failed")
    case.check()


@kind("worker killed that has no shard", "3", on_ray=True)
def idle_killed(case: Case) -> None:
    on_ray(case)
    case.count = 3  # one worker has two, one after the other
    for path in sorted(case.input.iterdir())[case.count :]:
        path.unlink()
    drive = case.start(trouble=Trouble(seconds=8))
    until(lambda: case.workers("done"), LIMIT, "the other has nothing left to do")
    time.sleep(case.draw.uniform(0.5, 2))
    for pid in case.workers("done"):
        os.kill(pid, signal.SIGKILL)
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(IDLE_DIED)
    case.check()


def poisoned(
    case: Case, poison: dict[str, str], reasons: dict[str, str], limit: float = LIMIT
) -> None:
    """Shards that have the same trouble always are given up, and no others."""
    on_ray(case)
    case.trouble = Trouble(shards=poison, times=None)
    case.settings += ["--engine.max_attempts", "2"]
    drive = case.start()
    until(lambda: any(case.work.glob("trouble-*")), LIMIT, "trouble")
    case.hit()
    assert drive.wait(limit) == 3, drive.log
    for shard, what in poison.items():
        case.must_say(f"^given up: {shard}-.*: {reasons[what]}")
    case.check(given_up=poison)
    before = (case.output / "failed").stat().st_mtime_ns
    again = case.start()
    assert again.wait(LIMIT) == 3, again.log
    assert (case.output / "failed").stat().st_mtime_ns == before
    case.executor = "local"  # sooner
    case.goes_on("--retry_failed")
    case.check()


REASONS = {
    "exit": "its worker died",
    "segfault": "its worker died",
    "raise": "RuntimeError: it cannot be done",
    "sleep": "its worker died",
    "hold": "its worker died",
}


@kind("shard that always ends its worker", on_ray=True)
def poison_exit(case: Case) -> None:
    poisoned(case, {f"s{case.draw.randrange(case.count):03}": "exit"}, REASONS)


@kind("shard that always raises", on_ray=True)
def poison_raise(case: Case) -> None:
    poisoned(case, {f"s{case.draw.randrange(case.count):03}": "raise"}, REASONS)


@kind("shard that always hangs, asleep", on_ray=True)
def poison_sleep(case: Case) -> None:
    case.settings += STALL
    poisoned(case, {f"s{case.draw.randrange(case.count):03}": "sleep"}, REASONS)


@kind("shard that always hangs and holds the interpreter", on_ray=True)
def poison_hold(case: Case) -> None:
    case.settings += STALL
    poisoned(case, {f"s{case.draw.randrange(case.count):03}": "hold"}, REASONS)


@kind("broken node that ends its worker at every shard, beside a healthy one", on_ray=True)
def broken_node(case: Case) -> None:
    """No shard is given up for it, though there are more deaths than attempts."""
    on_ray(case)
    broken = case.draw.choice(sorted(case.bench.nodes.alive()))
    what = case.draw.choice(["exit", "segfault"])
    case.trouble = Trouble(shards={"s": what}, times=None, node=broken, seconds=0.3)
    case.settings += ["--engine.max_attempts", "2"]
    with case.held():  # or the healthy one has done all by then
        drive = case.start()
        until(lambda: broken in case.workers().values(), LIMIT, "the broken node has a worker")
    until(lambda: any(case.work.glob("trouble-*")), LIMIT, "trouble")
    case.hit()
    assert drive.wait(LIMIT) == 0, drive.log
    case.must_say(DIED)
    case.check()


@kind("five shards of ten that are too much", on_ray=True)
def poison_all(case: Case) -> None:
    case.settings += STALL
    shards = case.draw.sample([f"s{number:03}" for number in range(case.count)], len(REASONS))
    # Ten deaths, one after the other, and each worker after them loads anew.
    poisoned(case, dict(zip(shards, REASONS, strict=True)), REASONS, 3 * LIMIT)


@kind("shard that raises in a local run")
def poison_local(case: Case) -> None:
    shard = f"s{case.draw.randrange(case.count):03}"
    case.trouble = Trouble(shards={shard: "raise"}, times=None, seconds=0.02)
    drive = case.start()
    case.wait_for_loading(drive)
    case.hit()
    assert drive.wait(LIMIT) == 3, drive.log
    case.must_say(f"^given up: {shard}-.*: RuntimeError: it cannot be done")
    case.check(given_up=[shard])
    case.goes_on("--retry_failed")
    case.check()
