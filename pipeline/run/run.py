"""One run from its plan to its summary: what annotation and every evaluation have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, one_line
from pipeline.inputs.shards import Shard
from pipeline.log import Event, say
from pipeline.outputs.books.cost import Cost
from pipeline.outputs.heartbeat import beating, trying
from pipeline.outputs.index import CommitTable
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Summary
from pipeline.run.accounts.work import Work
from pipeline.run.executors import Executor, make_executor
from pipeline.run.plan import Plan, plan
from pipeline.run.progress import print_plan
from pipeline.run.queue import ShardQueue
from pipeline.run.verification import verify
from pipeline.run.worker import MakeWorker
from pipeline.storage.patience import patiently

Patient = Callable[[Callable[[], Any]], Any]
"""Does what needs the output, however long that is not available."""

UNSEEN = (
    "its worker committed it, but not where this process looks: --output has to be a place that "
    "all nodes share"
)
MOST_CHECKS = 3
"""So often a run does again what others spoil; what is spoiled then is for the next run."""
TABLE_SECONDS = 300.0
"""So often `shards.parquet` is written: what a run commits after that, the next has to read."""


def run_shards(
    config: RunConfig,
    ledger: Ledger,
    shards: Sequence[Shard],
    make_worker: MakeWorker,
    finish: Callable[[CommitTable], object] = len,
) -> Summary:
    """Do every shard that is not committed yet, and say how it went.

    All the while `summary.json` says that the run is `running`, with signs of life, and in the end
    whether it has `finished` or was `stopped`, by somebody or by a storage that was away for too
    long. What was committed is compared with what is there
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
    names, work = [shard.name for shard in shards], Work(config.engine.price)
    patient: Patient = partial(
        patiently,
        what=f"--output {storage.public(config.output)}",
        seconds=config.engine.patience_seconds,
    )
    check = partial(verify, ledger, config.engine.log_seconds)
    damaged: dict[str, str] = patient(check) if config.verify else {}
    planned: Plan = patient(lambda: plan(config, ledger, shards, damaged))
    for line in config.model.weight_settings().lines:
        say(Event("weights", line))
    print_plan(planned)
    patient(lambda: ledger.forgive(planned.committed))
    if other := patient(ledger.other_driver):
        line = f"{other} does the same run in this output; each does what is left. What both "
        line += "spend is not added up: the cost in summary.json is of the one that writes last"
        say(Event("other_driver", line, "warning", driver=str(other)))
    before: Cost = patient(ledger.cost)
    complete = True
    try:
        if planned.todo:
            running = patient(lambda: ledger.summarise(names, "running", planned.known, before))
            planned = replace(planned, known=CommitTable.of([]))  # large, and soon out of date
            failure = "shards.parquet could not be written"
            writing = trying(TABLE_SECONDS, ledger.write_table, "shards.parquet", failure)
            with beating(lambda: ledger.beat(running, before.plus(work.cost()))), writing:
                complete = _run(config, ledger, planned, make_worker, patient, work)
        commits = patient(ledger.write_table)
        patient(lambda: ledger.check_owner(ledger.fingerprint))
        spent = before.plus(work.cost())
        state = "finished" if complete else "stopped"
        summary: Summary = patient(lambda: ledger.summarise(names, state, commits, spent))
        patient(lambda: finish(commits))
    except BaseException:
        _leave(ledger, names, before.plus(work.cost()))
        raise
    return summary


def _run(
    config: RunConfig,
    ledger: Ledger,
    planned: Plan,
    make_worker: MakeWorker,
    patient: Patient,
    work: Work,
) -> bool:
    """Do what is planned, and again what somebody else has spoiled by then.

    Returns:
        Whether every shard was tried: the storage has not been away for too long.
    """
    todo = planned.todo
    with closing(make_executor(config, ledger, make_worker)) as executor:
        for checks in range(MOST_CHECKS):
            if checks:
                print_plan(planned)
            patient(lambda: ledger.check_owner(ledger.fingerprint))
            patient(partial(ledger.forget, planned.again))
            goes_on = do_all(config, ledger, todo, executor, patient, work)
            patient(lambda: ledger.check_owner(ledger.fingerprint))
            if not goes_on:
                return False
            planned = patient(partial(plan, config, ledger, planned.shards))
            patient(partial(ledger.forgive, planned.committed))
            given_up = patient(ledger.failed)
            todo = [shard for shard in planned.todo if shard.name not in given_up]
            if not todo:
                break
    return True


def do_all(
    config: RunConfig,
    ledger: Ledger,
    todo: Sequence[Shard],
    executor: Executor,
    patient: Patient,
    work: Work,
) -> bool:
    """Try every shard until it is committed, or record why it was given up.

    Args:
        config: of the run.
        ledger: its output.
        todo: the shards.
        executor: has them tried.
        patient: for what is written here.
        work: is told what is done and held.

    Returns:
        Whether the run may go on: the storage has not been away for too long.

    Raises:
        ModelError: the model does not load.
        TakenOver: a run with other settings works in the output now.
    """

    def give_up(shard: Shard, reason: str, transient: bool) -> None:
        def record() -> None:
            ledger.fail(shard, reason, transient)

        if queue.ran_out:  # the run has waited enough
            patiently(record, config.output, 0.0)
        else:
            patient(record)

    queue = ShardQueue(config.engine, todo, give_up, ledger.report)
    queue.work = work
    executor.run(queue)
    committed = patient(ledger.committed)
    for shard in queue.done:
        if shard.name not in committed:
            line = f"given up: {shard.name}: {UNSEEN}"
            say(Event("given_up", line, "error", shard=shard.name, reason=UNSEEN))
            give_up(shard, UNSEEN, True)
    return not queue.ran_out


def _leave(ledger: Ledger, names: Sequence[str], spent: Cost) -> None:
    """Say in the summary that the run has stopped, if that can be written."""
    try:
        ledger.summarise(names, "stopped", ledger.write_table(), spent)
    except (OSError, ConfigError) as error:  # what has stopped the run is more important
        why = one_line(error)
        line = f"summary.json could not be written: {why}"
        say(Event("not_written", line, "warning", reason=why))
