"""Which shard is tried next, and what becomes of one that fails. Knows neither Ray nor threads.

Three kinds of failure are told apart, because only the first is the shard's own:

- An attempt: the shard raised, or was alone on a worker that died. After `max_attempts` it is
  given up.
- A shared death: several shards were on a worker that died. Nobody knows which of them was too
  much for it, so that this is no attempt; each is tried again alone.
- A want of storage or nodes: a server answered 503, a disk was full, a node was lost. The shard is
  tried again after a while, for `patience_seconds`. Where nothing else comes back either, all wait,
  and one shard at a time finds out whether the storage is there again.

After the death of a worker, shared or not, a shard is tried on a node where it has not taken one
with it, as long as there is one: that node may be what is broken.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from pipeline.config import ExecutionConfig
from pipeline.errors import TakenOver
from pipeline.inputs.shards import Shard
from pipeline.log import Event, say
from pipeline.run.accounts.work import Work

WORKER_DIED = (
    "its worker died (killed, out of memory, or without progress for --engine.stall_seconds); "
    "the job's log has the end of it"
)
MOST_LOSSES = 20
"""So many nodes may be lost under a shard: spot nodes go, and a shard that ends them is rare."""
ALL_WAIT_FROM = 3
"""After so many transient failures in a row, the storage is asked by one shard at a time."""
FEWEST_WAITS = 3
"""A shard is not given up before, however late its turn comes round."""
LONGEST_PAUSE = 60.0
"""Seconds between two tries, which begin with one second and double."""


@dataclass(frozen=True)
class Trial:
    """One try of a shard.

    Attributes:
        shard: what is tried.
        number: which try it is, from 1.
        alone: whether its worker may do nothing else meanwhile.
        last: whether the shard is given up if it fails by its own fault.
        waited_out: whether it is given up if storage or network fail it once more.
    """

    shard: Shard
    number: int = 1
    alone: bool = False
    last: bool = False
    waited_out: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a try of a shard ended.

    Attributes:
        error: why it failed; empty when it is committed.
        final: whether another attempt is pointless.
        transient: whether nothing is wrong with the shard: storage or network were.
        taken_over: whether the output belongs to another run now, so that all is pointless.
        record: what was committed, for the driver's ledger.
    """

    error: str = ""
    final: bool = False
    transient: bool = False
    taken_over: bool = False
    record: str = field(default="", compare=False, repr=False)


@dataclass
class _History:
    """Of a shard that has failed.

    Attributes:
        tries: of all kinds.
        attempts: failures that count.
        losses: nodes that were lost under it.
        died_on: nodes on which its worker died.
        pauses: transient failures, each of which doubles the pause.
        since: when the first of those was; None before.
    """

    tries: int = 0
    attempts: int = 0
    losses: int = 0
    died_on: set[str] = field(default_factory=set)
    pauses: int = 0
    since: float | None = None


@dataclass
class ShardQueue:
    """The shards of a run that are not committed yet.

    Attributes:
        engine: says how often and how long a shard is tried.
        shards: all of them.
        give_up: called with a shard, the reason, and whether that is transient.
        report: called with the record of every shard that is committed.
        say: called with a line for people, of everything that goes wrong.
        clock: seconds, of whatever beginning.
        done: the shards that are committed, as their workers say.
        ended: how many shards are committed or given up.
        ended_bytes: of these.
        ran_out: whether the storage was away for too long, so that the run is to end.
        work: is told of every shard that is committed.
    """

    engine: ExecutionConfig
    shards: Sequence[Shard]
    give_up: Callable[[Shard, str, bool], object]
    report: Callable[[str], object] = str
    say: Callable[[str], object] = say
    clock: Callable[[], float] = time.monotonic
    done: list[Shard] = field(default_factory=list)
    ended: int = 0
    ended_bytes: int = 0
    ran_out: bool = False
    work: Work = field(default_factory=Work)

    def __post_init__(self) -> None:
        self._fresh = deque(self.shards)
        self._alone: deque[Shard] = deque()
        self._later: list[tuple[float, int, Shard]] = []  # when, in which order, what
        self._order = count()
        self._histories: dict[str, _History] = {}
        self._flying = 0
        self._failures = 0  # transient ones, since anything else has happened
        self._waiting_since: float | None = None
        self._ask_at = 0.0
        self._cause = ""
        self._random = random.Random(0)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be tried, nor being tried."""
        return not self.left

    @property
    def in_flight(self) -> int:
        """Shards that workers are trying."""
        return self._flying

    @property
    def waiting(self) -> int:
        """Shards that are to be tried and are not being tried."""
        return len(self._fresh) + len(self._alone) + len(self._later)

    @property
    def left(self) -> int:
        """Shards that are neither committed nor given up."""
        return self.waiting + self._flying

    def next(
        self, idle: bool, node: str = "", others: Collection[str] = frozenset()
    ) -> Trial | None:
        """What a worker is to try now, if anything.

        Args:
            idle: whether it is doing nothing: some shards are tried alone.
            node: where it is.
            others: other nodes that have a worker which can try shards.
        """
        if self._failures >= ALL_WAIT_FROM and (self._flying or self.clock() < self._ask_at):
            return None
        if self._later and self._later[0][0] <= self.clock():
            return self._trial(heapq.heappop(self._later)[2])
        if self._fresh:
            return self._trial(self._fresh.popleft())
        if idle:
            for shard in self._alone:
                died_on = self._histories[shard.name].died_on
                if node not in died_on or died_on.issuperset(others):
                    self._alone.remove(shard)
                    return self._trial(shard, alone=True)
        return None

    def fill(
        self,
        flying: Collection[Trial],
        in_flight: int,
        node: str = "",
        others: Collection[str] = frozenset(),
    ) -> Iterator[Trial]:
        """What a worker is to begin besides what it is doing.

        Args:
            flying: the trials that it has.
            in_flight: how many it may have.
            node: where it is.
            others: other nodes that have a worker which can try shards.
        """
        busy = list(flying)
        while len(busy) < in_flight and not any(trial.alone for trial in busy):
            trial = self.next(not busy, node, others)
            if trial is None:
                return
            busy.append(trial)
            yield trial

    def end(self, trial: Trial, outcome: Outcome, where: str = "") -> None:
        """Take down how a try ended.

        Args:
            trial: which one.
            outcome: of it.
            where: it was, for people.

        Raises:
            TakenOver: there is no use in going on.
        """
        if outcome.taken_over:
            raise TakenOver(outcome.error)
        self._flying -= 1
        if outcome.transient:
            self._wait(trial, outcome.error)
            return
        self._storage_is_there()
        if not outcome.error:
            self.report(outcome.record)
            self.work.add(outcome.record)
            self.done.append(trial.shard)
            self._histories.pop(trial.shard.name, None)
            self._over(trial.shard)
        else:
            self._failed(trial, outcome.error, outcome.final, where)

    def lose(self, trials: Sequence[Trial], node_lost: bool, where: str, node: str = "") -> None:
        """Take down that a worker has died, or its node.

        Args:
            trials: that were on it.
            node_lost: whether its node is gone, so that no shard has to do with it.
            where: it was, for people.
            node: the same, as `fill` has it.
        """
        self._flying -= len(trials)
        if not trials:
            return
        shards = [trial.shard.name for trial in trials]
        names = ", ".join(shards)
        if node_lost:
            line = f"lost: {where}; tried again, which is no attempt: {names}"
            self.say(Event("lost", line, "warning", where=where, shards=shards))
            for trial in reversed(trials):
                history = self._history(trial)
                history.since, history.pauses = None, 0
                history.losses += 1
                if history.losses >= MOST_LOSSES:
                    self._give_up(trial.shard, f"lost with its node {MOST_LOSSES} times", True)
                else:
                    self._fresh.appendleft(trial.shard)
        elif len(trials) > 1:
            line = f"died: {where}, with {len(trials)} shards; each is tried alone: {names}"
            self.say(Event("died", line, "warning", where=where, shards=shards))
            for trial in trials:
                history = self._history(trial)
                history.since, history.pauses = None, 0
                history.died_on.add(node)
                self._alone.append(trial.shard)
        else:
            self._history(trials[0]).died_on.add(node)
            self._failed(trials[0], WORKER_DIED, False, where)

    def state(self) -> str:
        """What the run waits for, if it does, for people."""
        since = self._waiting_since  # once: another thread asks
        if since is None:
            return ""
        waited = self.clock() - since
        return (
            f"waiting for the storage for {waited:.0f} s, of at most "
            f"{self.engine.patience_seconds:.0f}: {self._cause}"
        )

    def _trial(self, shard: Shard, alone: bool = False) -> Trial:
        self._flying += 1
        history = self._histories.get(shard.name, _History())
        last = history.attempts + 1 >= self.engine.max_attempts
        is_late = history.since is not None and self._is_too_long(history.since)
        waited_out = is_late and history.pauses >= FEWEST_WAITS
        return Trial(shard, history.tries + 1, alone, last, waited_out)

    def _history(self, trial: Trial) -> _History:
        history = self._histories.setdefault(trial.shard.name, _History())
        history.tries = trial.number
        return history

    def _failed(self, trial: Trial, error: str, final: bool, where: str) -> None:
        history = self._history(trial)
        history.attempts += 1
        history.since, history.pauses = None, 0
        most = self.engine.max_attempts
        if final or history.attempts >= most:
            self._give_up(trial.shard, error, False)
            return
        at = f" ({where})" if where else ""
        shard, attempt = trial.shard.name, history.attempts
        line = f"failed: {shard}, attempt {attempt} of {most}{at}: {error}"
        about = {"shard": shard, "attempt": attempt, "where": where, "reason": error}
        self.say(Event("failed", line, "warning", **about))
        self._alone.append(trial.shard)

    def _wait(self, trial: Trial, error: str) -> None:
        """Try a shard again after a while, as long as the run has patience."""
        now, history = self.clock(), self._history(trial)
        history.since = now if history.since is None else history.since
        self._failures += 1
        self._cause = error
        if self._failures >= ALL_WAIT_FROM:
            self._waiting_since = now if self._waiting_since is None else self._waiting_since
            self._ask_at = now + self._pause(self._failures - ALL_WAIT_FROM)
        if trial.waited_out:
            self._give_up(trial.shard, error, True)
        else:
            pause = self._pause(history.pauses)
            history.pauses += 1
            heapq.heappush(self._later, (now + pause, next(self._order), trial.shard))
            self._tell_of_wait(trial.shard, error, pause)
        if self._waiting_since is not None and self._is_too_long(self._waiting_since):
            self._stop_waiting()

    def _tell_of_wait(self, shard: Shard, error: str, pause: float) -> None:
        """A line for each shard; of an outage, one for all."""
        if self._failures < ALL_WAIT_FROM:
            line = (
                f"not available: {shard.name}: {error}; tried again in {pause:.0f} s, which is no "
                "attempt"
            )
            about = {"shard": shard.name, "reason": error, "pause": pause}
            self.say(Event("not_available", line, "warning", **about))
        elif self._failures == ALL_WAIT_FROM:
            line = (
                f"the storage is not available: {error}; all shards wait for it, at most "
                f"{self.engine.patience_seconds:.0f} s (--engine.patience_seconds)"
            )
            self.say(Event("storage_away", line, "warning", reason=error))

    def _pause(self, failures: int) -> float:
        """Seconds, with a part left to chance: a thousand drivers must not ask at once."""
        return min(LONGEST_PAUSE, 2.0 ** min(failures, 10)) * self._random.uniform(0.5, 1.0)

    def _is_too_long(self, since: float) -> bool:
        return self.clock() - since >= self.engine.patience_seconds

    def _storage_is_there(self) -> None:
        """What has waited for it is tried at once."""
        if self._waiting_since is not None:
            waited = self.clock() - self._waiting_since
            line = f"the storage is there again, after {waited:.0f} s"
            self.say(Event("storage_back", line, seconds=waited))
            for _, _, shard in self._later:
                history = self._histories[shard.name]
                history.since, history.pauses = None, 0
            self._later = [(0.0, order, shard) for _, order, shard in self._later]
            heapq.heapify(self._later)
        self._failures, self._waiting_since = 0, None

    def _stop_waiting(self) -> None:
        """Give up what has failed, and leave what was not tried to the next run."""
        line = (
            f"the storage has not been there for {self.engine.patience_seconds:.0f} s "
            f"(--engine.patience_seconds): this run ends, the same command goes on"
        )
        self.say(Event("storage_lost", line, "error", reason=self._cause))
        self.ran_out = True
        for _, _, shard in self._later:
            self._give_up(shard, self._cause, True)
        self._later.clear()
        self._fresh.clear()
        self._alone.clear()

    def _give_up(self, shard: Shard, reason: str, transient: bool) -> None:
        line = f"given up: {shard.name}: {reason}"
        about = {"shard": shard.name, "reason": reason, "transient": transient}
        self.say(Event("given_up", line, "error", **about))
        self._histories.pop(shard.name, None)
        self.give_up(shard, reason, transient)
        self._over(shard)

    def _over(self, shard: Shard) -> None:
        self.ended += 1
        self.ended_bytes += shard.size
