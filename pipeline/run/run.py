"""One run from its plan to its summary: what annotation and every evaluation have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.heartbeat import beating, trying
from pipeline.outputs.index import CommitTable
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Summary
from pipeline.run.executors import make_executor
from pipeline.run.passes import Execute, run_passes
from pipeline.run.plan import Plan, plan
from pipeline.run.progress import print_plan
from pipeline.run.verification import verify
from pipeline.run.worker import MakeWorker

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
    """
    names = [shard.name for shard in shards]
    damaged = verify(ledger, config.engine.log_seconds) if config.verify else {}
    planned = plan(config, ledger, shards, damaged)
    print_plan(planned)
    ledger.forgive(planned.committed)
    if other := ledger.other_driver():
        print(f"{other} does the same run in this output; each does what is left", flush=True)
    state = "stopped"
    try:
        if planned.todo:
            running = ledger.summarise(names, "running", planned.known)
            failure = "shards.parquet could not be written"
            writing = trying(TABLE_SECONDS, ledger.write_table, "shards.parquet", failure)
            with beating(lambda: ledger.beat(running)), writing:
                execute = make_executor(config, ledger, make_worker)
                planned = _run(config, ledger, planned, execute)
        state = "finished"
    finally:
        commits = ledger.write_table()
        summary = ledger.summarise(names, state, commits)
    finish(commits)
    return summary


def _run(config: RunConfig, ledger: Ledger, planned: Plan, execute: Execute) -> Plan:
    """Do what is planned, and again what somebody else has spoiled by then."""
    todo = planned.todo
    for _ in range(MOST_CHECKS):
        ledger.check_owner(ledger.fingerprint)
        ledger.forget(planned.again)
        run_passes(config, ledger, todo, execute)
        ledger.check_owner(ledger.fingerprint)
        planned = plan(config, ledger, planned.shards)
        ledger.forgive(planned.committed)
        given_up = ledger.failed()
        todo = [shard for shard in planned.todo if shard.name not in given_up]
        if not todo:
            break
        print_plan(planned)
    return planned
