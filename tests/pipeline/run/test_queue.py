"""Which shard is tried next, how often, and what is said of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ExecutionConfig
from pipeline.errors import TakenOver
from pipeline.inputs.shards import Shard
from pipeline.run.queue import (
    ALL_WAIT_FROM,
    LONGEST_PAUSE,
    MOST_LOSSES,
    WORKER_DIED,
    Outcome,
    ShardQueue,
    Trial,
)

FAILED, HOPELESS = Outcome("it fails"), Outcome("it is hopeless", final=True)
NOT_THERE = Outcome("503", transient=True)


@dataclass
class Run:
    """A queue over the shards of these letters, whose time passes only when it is told to."""

    letters: str
    engine: ExecutionConfig = field(default_factory=ExecutionConfig)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.given_up: dict[str, tuple[str, bool]] = {}
        self.said: list[str] = []
        shards = [Shard(f"/{letter}.tar", f"/{letter}.tar", 10) for letter in self.letters]
        self.queue = ShardQueue(
            self.engine, shards, self._give_up, str, self.said.append, lambda: self.now
        )

    def _give_up(self, shard: Shard, reason: str, transient: bool) -> None:
        self.given_up[shard.uri[1]] = (reason, transient)

    def take(self, idle: bool = True) -> Trial:
        trial = self.queue.next(idle)
        assert trial is not None
        return trial

    def wait(self, seconds: float = LONGEST_PAUSE) -> None:
        self.now += seconds

    def done(self) -> str:
        return "".join(sorted(shard.uri[1] for shard in self.queue.done))


def letter(trial: Trial) -> str:
    return trial.shard.uri[1]


def test_shards_are_tried_in_order_and_once_where_nothing_goes_wrong() -> None:
    run = Run("abc")
    trials = [run.take() for _ in range(3)]
    assert [letter(trial) for trial in trials] == ["a", "b", "c"]
    assert {(trial.number, trial.alone, trial.last) for trial in trials} == {(1, False, False)}
    assert run.queue.next(idle=True) is None and not run.queue.is_over
    for trial in trials:
        run.queue.end(trial, Outcome())
    assert run.queue.is_over and run.done() == "abc" and run.said == []
    assert (run.queue.ended, run.queue.ended_bytes) == (3, 30)


def test_a_worker_gets_as_many_as_it_may_have() -> None:
    run = Run("abc")
    first = list(run.queue.fill([], 2))
    assert [letter(trial) for trial in first] == ["a", "b"]
    assert list(run.queue.fill(first, 2)) == []
    assert [letter(trial) for trial in run.queue.fill(first[:1], 2)] == ["c"]


def test_a_shard_that_fails_is_tried_so_often_and_a_hopeless_one_once() -> None:
    run = Run("ac")
    a, c = run.take(), run.take()
    run.queue.end(c, HOPELESS, "node")
    assert run.given_up == {"c": ("it is hopeless", False)}
    run.queue.end(a, FAILED, "node")
    assert run.said[-1].endswith(", attempt 1 of 3 (node): it fails")
    for number, last in ((2, False), (3, True)):
        again = run.take()
        assert (letter(again), again.number, again.alone, again.last) == ("a", number, True, last)
        run.queue.end(again, FAILED)
    assert run.given_up["a"] == ("it fails", False) and run.queue.is_over
    assert sum(line.startswith("given up: ") for line in run.said) == 2


def test_who_dies_with_others_is_tried_alone_on_a_worker_that_does_nothing_else() -> None:
    run = Run("abc", ExecutionConfig(max_attempts=1))
    a, b = run.queue.fill([], 2)
    run.queue.lose([a, b], False, "a worker on node")
    assert run.given_up == {} and "each is tried alone" in run.said[0]
    c = run.take(idle=False)
    assert letter(c) == "c" and run.queue.next(idle=False) is None
    (alone,) = run.queue.fill([], 2)
    assert (letter(alone), alone.alone, alone.number) == ("a", True, 2)
    assert list(run.queue.fill([alone], 2)) == []
    run.queue.lose([alone], False, "a worker on node")
    assert run.given_up == {"a": (WORKER_DIED, False)}
    run.queue.end(c, Outcome())
    run.queue.end(run.take(), Outcome())
    assert run.queue.is_over and run.done() == "bc"


def test_a_lost_node_is_no_attempt_but_for_a_limit_of_its_own() -> None:
    run = Run("a", ExecutionConfig(max_attempts=1))
    for _ in range(MOST_LOSSES):
        assert run.given_up == {}
        run.queue.lose([run.take()], True, "a worker with its node, spot")
    assert run.given_up == {"a": (f"lost with its node {MOST_LOSSES} times", True)}
    assert len(run.said) == MOST_LOSSES + 1 and "which is no attempt" in run.said[0]


def test_the_end_of_an_idle_worker_is_nothing_to_speak_of() -> None:
    run = Run("a")
    run.queue.lose([], False, "a worker on node")
    assert run.said == []


def test_what_is_not_available_is_tried_again_later_for_as_long_as_there_is_patience() -> None:
    run = Run("ab", ExecutionConfig(max_attempts=1, patience_seconds=500.0))
    tries = 0
    while not run.given_up:
        trial = run.take()
        assert letter(trial) == ("b" if tries == 1 else "a")
        tries += 1
        if tries == 2:  # it is not the storage as a whole
            run.queue.end(trial, Outcome())
            run.wait()
            continue
        assert trial.waited_out == (run.now >= 1500)
        run.queue.end(trial, NOT_THERE)
        if tries > 1:
            assert run.queue.next(idle=True) is None
            run.wait()
    assert run.given_up == {"a": ("503", True)} and run.now >= 1500 and 10 < tries < 40


def test_pauses_grow_and_have_a_bound() -> None:
    run = Run("ab", ExecutionConfig(patience_seconds=1e9))
    keeper = run.take()
    pauses = []
    for _ in range(12):
        run.queue._failures = 0  # one shard, and not the storage
        run.queue.end(run.take(), NOT_THERE)
        begun = run.now
        while run.queue._later[0][0] > run.now:
            run.wait(0.5)
        pauses.append(run.now - begun)
    assert letter(keeper) == "a" and pauses[0] <= 1.5 and max(pauses) <= LONGEST_PAUSE + 0.5
    assert pauses[-1] >= LONGEST_PAUSE / 2


def outage(run: Run) -> None:
    """All that is in flight fails."""
    for trial in [run.take(idle=False) for _ in range(ALL_WAIT_FROM)]:
        run.queue.end(trial, NOT_THERE)


def test_where_nothing_comes_back_one_shard_asks_for_all() -> None:
    run = Run("abcdefgh")
    outage(run)
    assert any("all shards wait for it" in line for line in run.said)
    assert run.queue.next(idle=True) is None
    run.wait(1.0)
    asks = run.take()
    run.wait()
    assert run.queue.next(idle=True) is None, "while one asks, nobody else does"
    assert "waiting for the storage for 61 s, of at most 1800: 503" in run.queue.state()
    assert not run.queue.ran_out
    lines = len(run.said)
    run.queue.end(asks, NOT_THERE)
    assert len(run.said) == lines, "the outage has been told"
    run.wait()
    run.queue.end(run.take(), Outcome())
    assert run.said[-1] == "the storage is there again, after 121 s" and run.queue.state() == ""
    while trial := run.queue.next(idle=True):
        run.queue.end(trial, Outcome())
    assert run.queue.is_over and run.done() == "abcdefgh" and run.given_up == {}


def test_an_answer_that_is_the_shards_own_fault_is_an_answer() -> None:
    run = Run("abcdefgh")
    outage(run)
    run.wait()
    run.queue.end(run.take(), HOPELESS)
    assert run.queue.state() == "" and len(run.given_up) == 1


def test_a_storage_that_never_comes_back_ends_the_run() -> None:
    run = Run("abcdefgh", ExecutionConfig(patience_seconds=300.0))
    outage(run)
    while not run.queue.is_over:
        run.wait(10.0)
        if trial := run.queue.next(idle=True):
            run.queue.end(trial, NOT_THERE)
    assert 1300 <= run.now <= 1300 + LONGEST_PAUSE + 10
    assert any("this run ends, the same command goes on" in line for line in run.said)
    assert run.given_up and set(run.given_up.values()) == {("503", True)}
    assert len(run.given_up) < 8, "those that were never tried are not given up"
    assert run.queue.ran_out


def test_patience_begins_with_the_outage_and_not_with_a_failure_long_ago() -> None:
    run = Run("abcdefgh", ExecutionConfig(patience_seconds=300.0))
    run.queue.end(run.take(), NOT_THERE)
    run.wait(1000.0)  # nothing ends meanwhile: shards are long
    for trial in [run.take() for _ in range(ALL_WAIT_FROM - 1)]:
        run.queue.end(trial, NOT_THERE)
    assert run.given_up == {} and "waiting for the storage for 0 s" in run.queue.state()


@pytest.mark.parametrize("fate", ["fails", "dies", "lost"])
def test_what_happens_to_a_shard_otherwise_ends_its_wait(fate: str) -> None:
    run = Run("ab", ExecutionConfig(patience_seconds=300.0))
    run.queue.end(run.take(), NOT_THERE)
    b = run.take()
    run.wait()
    a = run.take()
    FATES[fate](run, [a, b])
    run.wait(1000.0)
    again = run.take()
    assert letter(again) == "a" and again.number == 3 and not again.waited_out


def test_an_output_that_is_somebody_elses_ends_all() -> None:
    run = Run("a")
    with pytest.raises(TakenOver, match="it is theirs"):
        run.queue.end(run.take(), Outcome("it is theirs", final=True, taken_over=True))


Fate = tuple[str, int]
FATES: dict[str, Callable[[Run, list[Trial]], object]] = {
    "done": lambda run, trials: run.queue.end(trials.pop(0), Outcome()),
    "fails": lambda run, trials: run.queue.end(trials.pop(0), FAILED),
    "hopeless": lambda run, trials: run.queue.end(trials.pop(0), HOPELESS),
    "away": lambda run, trials: run.queue.end(trials.pop(0), NOT_THERE),
    "dies": lambda run, trials: (run.queue.lose(trials[:], False, "w"), trials.clear()),
    "lost": lambda run, trials: (run.queue.lose(trials[:], True, "n"), trials.clear()),
    "waits": lambda run, trials: run.wait(),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(FATES)), st.integers(0, 2)), max_size=80))
def test_whatever_happens_every_shard_is_done_or_given_up_once(fates: list[Fate]) -> None:
    run = Run("abcdefg")
    workers: list[list[Trial]] = [[], [], []]
    ending = [("done", worker) for _ in range(30) for worker in range(3)]
    for fate, number in [*fates, *ending]:
        for worker in workers:
            worker += run.queue.fill(worker, 2)
            assert len(worker) == 1 or not any(trial.alone for trial in worker)
        flying = [letter(trial) for worker in workers for trial in worker]
        assert len(flying) == len(set(flying)), "one shard, one try at a time"
        assert run.queue.left == 7 - run.queue.ended
        if fate == "waits" or workers[number]:
            FATES[fate](run, workers[number])
        if fate == "done":
            run.wait()
    assert run.queue.is_over
    assert sorted([*run.done(), *run.given_up]) == list("abcdefg")
    assert run.queue.ended == 7


def test_a_shard_is_tried_elsewhere_than_where_its_worker_died() -> None:
    run = Run("ab")
    first = list(run.queue.fill([], 2, "x", {"y"}))
    run.queue.lose(first, False, "a worker on x", "x")
    assert list(run.queue.fill([], 2, "x", {"y"})) == []  # y has work, and will come for it
    (a,) = run.queue.fill([], 2, "y", {"x"})
    assert (letter(a), a.alone) == ("a", True)
    run.queue.lose([a], False, "a worker on y", "y")
    (a,) = run.queue.fill([], 2, "x", {"y"})  # b may not: it has not been on y yet
    assert letter(a) == "a"
    run.queue.end(a, Outcome())
    (b,) = run.queue.fill([], 2, "x", set())  # nobody else is left
    assert letter(b) == "b"
    run.queue.end(b, Outcome())
    assert run.queue.is_over and run.done() == "ab" and run.given_up == {}


def test_a_node_that_ends_every_worker_takes_no_healthy_shard_with_it() -> None:
    run = Run("abcdefgh")
    while not run.queue.is_over:
        broken = list(run.queue.fill([], 2, "broken", {"healthy"}))
        if broken:
            run.queue.lose(broken, False, "a worker on broken", "broken")
        for trial in run.queue.fill([], 1, "healthy", {"broken"}):
            run.queue.end(trial, Outcome())
    assert run.done() == "abcdefgh" and run.given_up == {}
