"""One run from its plan to its summary: what annotation and every evaluation have in common."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import AnnotateConfig
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Summary
from pipeline.run.executors import make_executor
from pipeline.run.passes import plan, run_passes
from pipeline.run.progress import print_plan
from pipeline.run.worker import MakeWorker, Worker


def run_shards(
    config: AnnotateConfig,
    ledger: Ledger,
    shards: Sequence[Shard],
    make_worker: MakeWorker = Worker,
) -> Summary:
    """Do every shard that is not committed yet, and say how it went.

    All the while `summary.json` says that the run is `running`, and in the end whether it has
    `finished` or was `stopped`.

    Args:
        config: of the run.
        ledger: its output, which has been opened.
        shards: all that the input names.
        make_worker: called in every process that does shards; has to travel there.

    Raises:
        ModelError: the model does not load.
    """
    names = [shard.name for shard in shards]
    todo = plan(config, ledger, shards)
    print_plan(todo)
    state = "stopped"
    try:
        if todo.todo:
            ledger.summarise(names, "running", todo.known)
            execute = make_executor(config, make_worker)
            ledger.forget(todo.changed)
            run_passes(config, ledger, todo.todo, execute)
        state = "finished"
    finally:
        summary = ledger.summarise(names, state, todo.known)
    return summary
