r"""Annotate shards of images with pseudo-masks; without --input, the bundled demo.

    python jobs/annotate.py --input 'shards/{000..127}.tar' --output out \
        --model.name ViT-bigG-14 --model.pretrained laion2b_s39b_b160k --model.precision bfloat16

Exit codes: 0 everything is committed (or no more than --allow_failed shards failed), 2 a bad
setting or the model does not load, 3 finished but shards failed, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.cli import ExitCode, run_command
from pipeline.config import DEMO_MODEL, AnnotateConfig
from pipeline.demo import run as demo
from pipeline.run.annotation import annotate, print_status

DEMO_WARNING = (
    "WARNING: the model is the demo's (--model.name legrad-demo). It knows emoji, not photographs: "
    "name a CLIP with --model.name and --model.pretrained."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(AnnotateConfig, "annotate.py", __doc__, arguments, run)


def run(config: AnnotateConfig) -> ExitCode:
    """Annotate what the settings name, or say how far a run is."""
    if config.status:
        print_status(config.status, config.verify)
        return ExitCode.DONE
    is_demo = config.input == ""
    if is_demo:
        config = demo.configure(config)
    elif config.model.name == DEMO_MODEL:
        print(DEMO_WARNING, flush=True)
    config = config.absolute()
    summary = annotate(config)
    if is_demo and not config.dry_run and summary.shards:
        demo.report(config.output)
    failed = len(summary.missing) > config.allow_failed
    return ExitCode.SHARDS_MISSING if failed else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
