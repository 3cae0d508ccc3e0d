"""Running shards on a Ray cluster. The only module that knows Ray.

An actor holds a model and tries a few shards at once, each of which it writes and commits itself;
what it gives back is how that went: pixels and masks never travel. Placement, restarts of nodes and
their loss are Ray's; which shard an actor gets, and what its end means, is decided here and in
`queue`. (Ray Data's pool, which was used before, owns its actors: it starts a dead one again
without a word, loads the model once more for every pass, and takes 15 ms for every shard.)
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import socket
import sys
import threading
import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.metrics import Counter, Gauge

from pipeline import storage
from pipeline.cli import ExitCode, stop_when_terminated
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, ModelError, one_line, print_traceback
from pipeline.log import Event, say
from pipeline.outputs.ledger import Ledger
from pipeline.run.accounts.metrics import Metric, Put, told
from pipeline.run.loads import Loads
from pipeline.run.members import Member, lacks, superfluous, waits_for
from pipeline.run.placement import choose
from pipeline.run.progress import Meter, shown
from pipeline.run.queue import Outcome, ShardQueue, Trial
from pipeline.run.tally import Tally
from pipeline.run.watchdog import Watchdog
from pipeline.run.worker import MakeWorker, ShardWorker

LOOK_SECONDS = 0.2
"""Between two looks at what has become due, where nothing has ended."""
JOIN_SECONDS = 10.0
"""That the cluster which RAY_ADDRESS names may take to answer."""
DOUBT_SECONDS = 60.0
"""That a worker may be out of reach; Ray needs about 15 to be sure that a node is lost."""
DIED_LOADING = (
    "the worker died (killed, out of memory, or without progress for --engine.stall_seconds); the "
    "job's log has the end of it"
)


class RayExecutor:
    """Has shards tried in actors of a Ray cluster, each with a model of its own."""

    def __init__(self, config: RunConfig, ledger: Ledger, make_worker: MakeWorker) -> None:
        """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start one here."""
        _join()
        self._config, self._ledger, self._make_worker = config, ledger, make_worker
        self._needs = choose(config.engine, _nodes())
        self._on_gpu = self._needs.gpus > 0
        room = sum(map(self._needs.room, _nodes()))
        self._workers = config.engine.workers or (room if self._on_gpu else 1)
        if not self._workers:
            raise ConfigError(
                f"--engine.device {config.engine.device}: the cluster has no room yet for a worker "
                f"that needs {self._needs}: {self._needs.missing(_nodes())}; say with "
                "--engine.workers how many it is to have"
            )
        if not self._on_gpu:
            say(Event("no_gpu", "No GPU is used: the models run on the CPU", "warning"))
        self._members: list[Member] = []
        self._loads = Loads(config.engine.patience_seconds)
        self._images = 0  # of members that are gone

    def run(self, queue: ShardQueue) -> None:
        """Try what is in the queue until nothing is left of it.

        Raises:
            ModelError: the model does not load.
            StorageError: it cannot be loaded for want of storage.
            TakenOver: the output belongs to another run now.
        """
        engine = self._config.engine
        before, wanted = self._counted(), min(self._workers, queue.left)
        meter = Meter(
            queue,
            lambda: self._counted() - before,
            lambda: waits_for(self._members, self._needs, _nodes),
            lambda: lacks(self._members, self._needs, _nodes),
        )
        unit = "GPU" if self._on_gpu else "worker"
        showing = shown(meter, engine.log_seconds)
        with showing, told(queue, _instrument), queue.work.returned():
            while not queue.is_over:
                if not queue.waiting:
                    for member in superfluous(self._members, engine.max_attempts):
                        self._end(member)
                busy = sum(bool(member.trials) for member in self._members)
                self._start(min(wanted, busy + queue.waiting))
                nodes = {member.node for member in self._members if member.is_ready}
                for member in self._members:
                    if member.is_ready:
                        self._fill(member, queue, nodes - {member.node})
                    member.ask_for_count(engine.log_seconds / 2)
                self._take_what_ended(queue)
                placed = sum(not member.is_waiting for member in self._members)
                queue.work.hold(placed * (self._needs.gpus or 1), unit)

    def close(self) -> None:
        """End the actors."""
        while self._members:
            ray.kill(self._members.pop().actor)

    def _start(self, wanted: int) -> None:
        """Start as many actors as are missing; those that wait for room make a cluster grow.

        Raises:
            ModelError: there is no node left that could take one.
        """
        missing = wanted - len(self._members)
        if missing <= 0 or not self._loads.may_start(any(m.is_loading for m in self._members)):
            return
        out = self._loads.left_out
        if out and not self._is_a_node_left():
            if not self._members:
                raise ModelError(f"no node is left where it loads: {next(iter(out.values()))}")
            return  # those that have it go on
        actor_class: Any = ray.remote(_ShardActor)
        of_class = actor_class.options(
            max_restarts=0,
            # The further one is for the questions that are asked while shards are done.
            max_concurrency=self._config.engine.shards_in_flight + 1,
            **self._needs.options(out),
        )
        for _ in range(missing):
            actor = of_class.remote(self._config, self._ledger, self._make_worker)
            self._members.append(Member(actor, actor.where.remote()))

    def _fill(self, member: Member, queue: ShardQueue, others: set[str]) -> None:
        """Give an actor as many shards as it may have."""
        in_flight = self._config.engine.shards_in_flight
        for trial in queue.fill(member.trials.values(), in_flight, member.node, others):
            member.trials[member.actor.do.remote(trial)] = trial

    def _is_a_node_left(self) -> bool:
        """Whether there is one that could take a worker, or none yet at all."""
        usable = {node["NodeID"] for node in _nodes() if self._needs.room(node)}
        return not usable or bool(usable - self._loads.left_out.keys())

    def _take_what_ended(self, queue: ShardQueue) -> None:
        owners = {ref: member for member in self._members for ref in member.refs()}
        if not owners:
            time.sleep(LOOK_SECONDS)
            return
        ready, _ = ray.wait(list(owners), num_returns=1, timeout=LOOK_SECONDS)
        if ready:  # what else has ended costs no time
            ready, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        for ref in ready:
            member = owners[ref]
            if member not in self._members:
                continue  # another of its refs has told the same
            try:
                result = ray.get(ref)
            except ActorUnavailableError:
                self._doubt(member, ref, queue)
            except RayError as error:
                self._lose(member, queue, error)
            else:
                self._take(member, ref, result, queue)

    def _take(self, member: Member, ref: Any, result: Any, queue: ShardQueue) -> None:
        """Take one of the answers of an actor."""
        if ref == member.placing and member.doubted:
            self._end(member)  # what it was asked in the meantime it may do, or may not
            self._requeue(member, queue)
        elif ref == member.placing:
            member.placing, (member.node, member.host) = None, result
            member.loading = member.actor.load.remote()
        elif ref == member.loading:
            member.loading, (cause, may_pass) = None, result
            if cause:
                self._end(member)
                if may_pass:
                    self._loads.not_available(member.host, cause)
                else:
                    self._not_loaded(member, cause, died=False)
            else:
                member.has_model = True
                self._loads.succeeded(member.node)
        elif ref == member.counting:
            member.counting, member.images = None, result
        else:
            outcome, member.images = result
            queue.end(member.trials.pop(ref), outcome, member.host)

    def _doubt(self, member: Member, ref: Any, queue: ShardQueue) -> None:
        """A worker is out of reach: ask it where it is, until Ray knows what became of it."""
        now = time.monotonic()
        member.doubtful_since = member.doubtful_since or now
        if now - member.doubtful_since > DOUBT_SECONDS:
            self._end(member)
            self._requeue(member, queue)
        elif ref != member.placing:
            member.doubted.add(ref)
            member.placing = member.placing or member.actor.where.remote()
        else:
            time.sleep(LOOK_SECONDS)
            member.placing = member.actor.where.remote()

    def _lose(self, member: Member, queue: ShardQueue, error: RayError) -> None:
        """Find out what a worker that is dead has died of."""
        self._end(member)
        preempted = isinstance(error, RayActorError) and error.preempted
        if member.is_waiting:
            self._loads.lost(f"lost: a worker that was to start: {_last_line(error)}")
        elif preempted or not _is_alive(member.node):
            self._requeue(member, queue)
        elif member.is_loading:
            self._not_loaded(member, DIED_LOADING, died=True)
        elif member.trials:
            queue.lose(
                list(member.trials.values()), False, f"a worker on {member.host}", member.node
            )
        else:
            self._loads.lost(f"died: a worker on {member.host}, which had no shard")

    def _requeue(self, member: Member, queue: ShardQueue) -> None:
        """What a worker did whose node is lost, or out of reach, is nobody's fault."""
        what = f"a worker with its node, {member.host}, or out of reach"
        if member.trials:
            queue.lose(list(member.trials.values()), True, what)
        else:
            self._loads.lost(f"lost: {what}; it had no shard yet")

    def _end(self, member: Member) -> None:
        self._members.remove(member)
        self._images += member.images
        ray.kill(member.actor)

    def _not_loaded(self, member: Member, cause: str, died: bool) -> None:
        others = any(other.is_loading for other in self._members)
        before = len(self._loads.left_out)
        waiting = [other for other in self._members if other.is_waiting]
        self._loads.failed(
            member.node, member.host, cause, died=died, others=others, waiting=bool(waiting)
        )
        if len(self._loads.left_out) > before:
            for other in waiting:  # they might be put there
                self._members.remove(other)
                ray.kill(other.actor)

    def _counted(self) -> int:
        return self._images + sum(member.images for member in self._members)


class _ShardActor:
    """What Ray runs in each actor."""

    def __init__(self, config: RunConfig, ledger: Ledger, make_worker: MakeWorker) -> None:
        self._config, self._ledger, self._make_worker = config, ledger, make_worker
        self._tally = Tally()
        self._worker: ShardWorker | None = None

    def where(self) -> tuple[str, str]:
        """Node and its name, once there was room."""
        return ray.get_runtime_context().get_node_id(), platform.node()

    def load(self) -> tuple[str, bool]:
        """Load the model; why that is not possible, and whether it may be the next time."""
        try:
            self._ledger.check_owner(self._ledger.fingerprint)
            if not self._ledger.is_here():
                raise ConfigError(
                    f"--output {self._config.output}: a worker on {platform.node()} does not find "
                    "the run there; it has to be a place that all nodes share"
                )
            with Watchdog(self._config.engine.stall_seconds).watch():
                self._worker = self._make_worker(self._config)
        except Exception as error:
            if not isinstance(error, ModelError | ValueError):
                print_traceback()
            return one_line(error), storage.is_transient(error)
        return "", False

    def do(self, trial: Trial) -> tuple[Outcome, int]:
        """Try a shard; how that went, and the images that have been done here."""
        assert self._worker is not None  # shards are given to those that have loaded
        return self._worker.try_shard(trial, self._tally.add), self._tally.total()

    def count(self) -> int:
        """Images that have been done here."""
        return self._tally.total()


def _join() -> None:
    """Join a cluster, or start one.

    Raises:
        ConfigError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    line = f"Joining Ray at {address}" if address else "Starting Ray on this machine"
    say(Event("ray", line, address=address))
    try:
        if host and port.isdecimal():
            # Ray itself asks a dead address for minutes, and says nothing.
            socket.create_connection((host.strip("[]"), int(port)), JOIN_SECONDS).close()
        _start_ray()
    except (OSError, RuntimeError) as error:
        if not address:
            raise ConfigError(f"Ray does not start here: {one_line(error)}") from error
        raise ConfigError(
            f"RAY_ADDRESS {address!r}: no cluster answers there ({one_line(error)}); start it, or "
            "unset RAY_ADDRESS to have Ray started here"
        ) from error


def _start_ray() -> None:
    """Start or join it in a thread, so that signals are answered meanwhile as at any other time.

    In the main thread Ray would answer them, in its own way. The thread stays, for what Ray has
    started ends with the thread that has started it.
    """
    ended, errors = threading.Event(), list[BaseException]()

    def start() -> None:
        try:
            ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
        except BaseException as error:
            errors.append(error)
        ended.set()
        threading.Event().wait()

    logging.getLogger("ray").setLevel(logging.ERROR)
    threading.Thread(target=start, name="ray", daemon=True).start()
    try:
        while not ended.wait(LOOK_SECONDS):
            stop_when_terminated()  # Ray has handlers of its own, also below Python
    except KeyboardInterrupt:
        atexit.register(_exit_at_once)
        raise
    stop_when_terminated()
    if errors:
        raise errors[0]


def _exit_at_once() -> None:
    """Instead of Ray's own way out: where its start was stopped, that loses the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(ExitCode.STOPPED)


def _instrument(metric: Metric) -> Put:
    """Has Ray show a metric to Prometheus, at the metrics port of the driver's node."""
    labels = (metric.label,) if metric.label else ()
    if metric.kind == "counter":
        return Counter(metric.name, metric.about, labels).inc
    return Gauge(metric.name, metric.about, labels).set


def _last_line(error: RayError) -> str:
    """What Ray says in the end is the cause."""
    return str(error).strip().rpartition("\n")[2]


def _is_alive(node: str) -> bool:
    return any(other["NodeID"] == node and other["Alive"] for other in _nodes())


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes
