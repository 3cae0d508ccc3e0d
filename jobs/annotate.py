r"""Annotate shards of images with pseudo-masks; without --input, the bundled demo.

    python jobs/annotate.py --input 'shards/{000..127}.tar' --output out \
        --model.name ViT-bigG-14 --model.pretrained laion2b_s39b_b160k --model.precision bfloat16

Exit codes: 0 everything is committed (or no more than --allow_failed shards failed), 2 a bad
setting or the model does not load, 3 finished but shards failed, 143 stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline import storage
from pipeline.cli import parse
from pipeline.config import AnnotateConfig
from pipeline.demo import run as demo
from pipeline.errors import ConfigError, ModelError, naming
from pipeline.inputs.classes import load_classes
from pipeline.inputs.shards import find_shards
from pipeline.models.demo import NAME as DEMO_MODEL
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Summary
from pipeline.run.executors import STOPPED
from pipeline.run.passes import plan
from pipeline.run.progress import print_dry_run, print_failures, print_summary
from pipeline.run.run import run_shards

DEMO_WARNING = (
    "WARNING: the model is the demo's (--model.name legrad-demo). It knows emoji, not photographs: "
    "name a CLIP with --model.name and --model.pretrained."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        config = parse(AnnotateConfig, "annotate.py", __doc__, arguments)
        if config.status:
            return show_status(config.status)
        is_demo = config.input == ""
        if not is_demo and config.model.name == DEMO_MODEL:
            print(DEMO_WARNING, flush=True)
        config = demo.configure(config) if is_demo else config
        summary = annotate(config.located())
    except (ConfigError, ModelError, FileNotFoundError) as error:
        print(f"annotate.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("annotate.py: stopped; the same command goes on", file=sys.stderr)
        return STOPPED
    if is_demo and not config.dry_run and summary.shards:
        demo.report(config.output)
    return 3 if len(summary.missing) > config.allow_failed else 0


def annotate(config: AnnotateConfig) -> Summary:
    """Annotate every shard that is not committed yet, and say how it went."""
    started = time.monotonic()
    shards = find_shards(config.patterns, config.input_root)[: config.limit_shards]
    categories = _read_settings(config)
    ledger = Ledger(config.output)
    output = f"--output {storage.without_secrets(config.output)}"
    if config.dry_run:
        with naming(output):
            todo, changes = plan(config, ledger, shards), ledger.changes(config.results())
        print_dry_run(config, todo, changes)
        return Summary.of([], [], "finished")
    with naming(output):
        redo = config.on_mismatch == "redo"
        ledger.open(config.results(), config.described(), categories, redo=redo)
    summary = run_shards(config, ledger, shards)
    print_summary(summary, config.output, time.monotonic() - started)
    print_failures(ledger.failures(), summary)
    return summary


def show_status(output: str) -> int:
    """Print what is committed and what was given up in an output, also while a run works on it.

    An evaluation leaves the same records, so that this is good for its output too.
    """
    ledger = Ledger(output)
    with naming(f"--status {storage.without_secrets(output)}"):
        state, planned = ledger.last_run()
        summary, failures = replace(ledger.summary(), planned=planned), ledger.failures()
    print(f"the last run: {state}")
    print_summary(summary, output)
    print_failures(failures, summary)
    return 0


def _read_settings(config: AnnotateConfig) -> list[dict[str, Any]]:
    """Read the files that settings name, and return the categories of the class file."""
    with naming(f"--prompts.classes {storage.without_secrets(config.prompts.classes)}"):
        classes = load_classes(config.prompts.classes) if config.prompts.classes else []
    with naming(f"--model.pretrained {storage.without_secrets(config.model.pretrained)}"):
        config.results()  # has digests of the files, and keeps them
    return [{"id": category.id, "name": category.name} for category in classes]


if __name__ == "__main__":
    sys.exit(main())
