"""One run from its plan to its summary: what annotation and every evaluation have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, one_line
from pipeline.inputs.shards import Shard
from pipeline.outputs.heartbeat import beating
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit, Summary
from pipeline.run.executors import Executor, make_executor
from pipeline.run.patience import patiently
from pipeline.run.plan import Plan, plan
from pipeline.run.progress import print_plan
from pipeline.run.queue import ShardQueue
from pipeline.run.worker import MakeWorker

Result = TypeVar("Result")
Patient = Callable[[Callable[[], Any]], Any]
"""Does what needs the output, however long that is not available."""

UNSEEN = (
    "its worker committed it, but not where this process looks: --output has to be a place that "
    "all nodes share"
)
MOST_CHECKS = 3
"""So often a run does again what others spoil; what is spoiled then is for the next run."""


def run_shards(
    config: RunConfig,
    ledger: Ledger,
    shards: Sequence[Shard],
    make_worker: MakeWorker,
    finish: Callable[[list[Commit]], object] = list,
) -> Summary:
    """Do every shard that is not committed yet, and say how it went.

    All the while `summary.json` says that the run is `running`, with signs of life, and in the end
    whether it has `finished` or was `stopped`. What was committed is compared with what is there
    before and after the work: another process may have deleted or replaced tables meanwhile.

    Args:
        config: of the run.
        ledger: its output, which has been opened.
        shards: all that the input names.
        make_worker: called in every process that does shards; has to travel there.
        finish: gets all commits of the output at the end of a run that was not stopped.

    Raises:
        ModelError: the model does not load.
        TakenOver: a run with other settings works in the output now.
        StorageError: the output cannot be read or written.
    """
    names = [shard.name for shard in shards]

    def patient(work: Callable[[], Result]) -> Result:
        return patiently(work, config.output, config.engine.patience_seconds)

    planned = patient(lambda: plan(config, ledger, shards))
    print_plan(planned)
    if other := patient(ledger.other_driver):
        print(f"{other} does the same run in this output; each does what is left", flush=True)
    try:
        if planned.todo:
            running = patient(lambda: ledger.summarise(names, "running", planned.known))
            with beating(lambda: ledger.beat(running)):
                planned = _run(config, ledger, planned, make_worker, patient)
    except BaseException:
        _leave(ledger, names, planned)
        raise
    commits = patient(lambda: ledger.commits(planned.known))
    summary = patient(lambda: ledger.summarise(names, "finished", commits))
    patient(lambda: finish(commits))
    return summary


def _run(
    config: RunConfig, ledger: Ledger, planned: Plan, make_worker: MakeWorker, patient: Patient
) -> Plan:
    """Do what is planned, and again what somebody else has spoiled by then."""
    todo = planned.todo
    with closing(make_executor(config, ledger, make_worker)) as executor:
        for _ in range(MOST_CHECKS):
            patient(lambda: ledger.check_owner(ledger.fingerprint))
            patient(partial(ledger.forget, planned.again))
            do_all(config, ledger, todo, executor, patient)
            patient(lambda: ledger.check_owner(ledger.fingerprint))
            planned = patient(partial(plan, config, ledger, planned.shards, planned.known))
            given_up = patient(ledger.failed)
            todo = [shard for shard in planned.todo if shard.name not in given_up]
            if not todo:
                break
            print_plan(planned)
    return planned


def do_all(
    config: RunConfig,
    ledger: Ledger,
    todo: Sequence[Shard],
    executor: Executor,
    patient: Patient,
) -> None:
    """Try every shard until it is committed, or record why it was given up.

    Raises:
        ModelError: the model does not load.
        TakenOver: a run with other settings works in the output now.
    """

    def give_up(shard: Shard, reason: str, transient: bool) -> None:
        patient(lambda: ledger.fail(shard, reason))

    queue = ShardQueue(config.engine, todo, give_up)
    executor.run(queue)
    unseen = queue.done - patient(ledger.committed)
    for shard in todo:
        if shard.name in unseen:
            give_up(shard, UNSEEN, False)


def _leave(ledger: Ledger, names: Sequence[str], planned: Plan) -> None:
    """Say in the summary that the run has stopped, if that can be written."""
    try:
        ledger.summarise(names, "stopped", ledger.commits(planned.known))
    except (OSError, ConfigError) as error:  # what has stopped the run is more important
        print(f"summary.json could not be written: {one_line(error)}", flush=True)
