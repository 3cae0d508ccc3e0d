"""One annotation run: from its settings to its summary."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pipeline import storage
from pipeline.config import AnnotateConfig
from pipeline.errors import ConfigError, naming
from pipeline.inputs.calibration import load_calibration
from pipeline.inputs.option_texts import names_of
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.shards import shards_of
from pipeline.log import Event, say
from pipeline.outputs.card import annotations_card
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Summary
from pipeline.run.plan import plan
from pipeline.run.progress import print_dry_run, print_failures, print_summary
from pipeline.run.run import run_shards
from pipeline.run.verification import verify
from pipeline.run.worker import Worker
from pipeline.storage.patience import START_SECONDS, patiently

FINISHED = "finished"
UNSAID = "no record says why; the same command tries it again"
"""Of a shard whose failure could not be written down."""


def annotate(config: AnnotateConfig) -> Summary:
    """Annotate every shard that is not committed yet, and say how it went.

    Args:
        config: with absolute paths.

    Raises:
        ConfigError: a setting cannot work, or the output holds results of other ones.
        ModelError: the model does not load.
    """
    started = time.monotonic()
    shards = shards_of(config)
    categories = _read_settings(config)
    ledger = Ledger(config.output)
    output = f"--output {storage.public(config.output)}"
    if config.dry_run:
        with naming(output):
            damaged = verify(ledger, config.engine.log_seconds) if config.verify else {}
            planned = plan(config, ledger, shards, damaged)
            changes = ledger.changes(config.identity())
        print_dry_run(config, planned, changes)
        return Summary.of([], [], "finished")

    def begin() -> None:
        with naming(output):
            redo = config.on_mismatch == "redo"
            ledger.open(config.identity(), config.recorded(), categories, redo=redo)
            ledger.write_card(annotations_card(config.public()["model"]))

    patiently(begin, output, START_SECONDS)
    summary = run_shards(config, ledger, shards, Worker, ledger.write_categories)
    print_summary(summary, config.output, time.monotonic() - started)
    failures = patiently(ledger.failures, output, config.engine.patience_seconds)
    print_failures(failures, summary)
    return summary


def print_status(output: str, thorough: bool = False) -> None:
    """Print what is committed and what was given up in an output, also while a run works on it.

    An evaluation leaves the same records, so that this is good for its output too.

    Args:
        output: where it is.
        thorough: read all that is committed, and name what is damaged.
    """
    ledger = Ledger(output)
    with naming(f"--status {storage.public(output)}"):
        (state, planned), life = ledger.last_run(), ledger.life()
        commits, failures, spent = ledger.table(), ledger.failures(), ledger.cost()
        if state == FINISHED:  # what is missing is not merely to come
            failures = dict.fromkeys(set(ledger.left()) - set(commits.names), UNSAID) | failures
        summary = ledger.summary({*commits.names, *failures}, commits=commits)
        damaged = verify(ledger) if thorough else {}
    said = f"the last run: {state}{f' ({life})' if life else ''}"
    say(Event("last_run", said, state=state, driver=life))
    print_summary(replace(summary, planned=planned, cost=spent.record()), output)
    print_failures(failures, summary)
    for shard, wrong in sorted(damaged.items()):
        line = f"damaged: {shard}: {wrong}"
        say(Event("damaged", line, "error", shard=shard, reason=wrong))


def _read_settings(config: AnnotateConfig) -> list[dict[str, Any]]:
    """Read the files that settings name, and return the categories of the class file."""
    with naming(f"--prompts.classes {storage.public(config.prompts.classes)}"):
        if config.prompts.hears and not config.model.hears:
            raise ConfigError(
                f"--prompts.classes {storage.public(config.prompts.classes)}: it names sounds, and "
                f"{config.model.name} has no audio tower; give --model.name imagebind_huge"
            )
        classes = PromptReader(config.prompts).classes
        names_of(config)
    if calibration := config.prompts.calibration:
        with naming(f"--prompts.calibration {storage.public(calibration)}"):
            load_calibration(calibration, config.identity())
    config.identity()  # has digests of the files, and keeps them
    return [{"id": category.id, "name": category.name} for category in classes]
