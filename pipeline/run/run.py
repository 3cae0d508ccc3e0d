"""One run from its plan to its summary: what annotation and every evaluation have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.config import RunConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit, Summary
from pipeline.run.executors import make_executor
from pipeline.run.passes import plan, run_passes
from pipeline.run.progress import print_plan
from pipeline.run.worker import MakeWorker


def run_shards(
    config: RunConfig,
    ledger: Ledger,
    shards: Sequence[Shard],
    make_worker: MakeWorker,
    finish: Callable[[list[Commit]], object] = list,
) -> Summary:
    """Do every shard that is not committed yet, and say how it went.

    All the while `summary.json` says that the run is `running`, and in the end whether it has
    `finished` or was `stopped`.

    Args:
        config: of the run.
        ledger: its output, which has been opened.
        shards: all that the input names.
        make_worker: called in every process that does shards; has to travel there.
        finish: gets all commits of the output at the end of a run that was not stopped.

    Raises:
        ModelError: the model does not load.
    """
    names = [shard.name for shard in shards]
    planned = plan(config, ledger, shards)
    print_plan(planned)
    state = "stopped"
    try:
        if planned.todo:
            ledger.summarise(names, "running", planned.known)
            execute = make_executor(config, ledger, make_worker)
            ledger.forget(planned.changed)
            run_passes(config, ledger, planned.todo, execute)
        state = "finished"
    finally:
        commits = ledger.commits(planned.known)
        summary = ledger.summarise(names, state, commits)
    finish(commits)
    return summary
