r"""Annotate shards of images with pseudo-masks; without --input, the bundled demo.

    python jobs/annotate.py --input 'shards/{000..127}.tar' --output out \
        --model.name ViT-bigG-14 --model.pretrained laion2b_s39b_b160k --model.precision bfloat16

Exit codes: 0 everything is committed, 2 a bad setting or the model does not load,
3 finished but some shards failed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pipeline.config import AnnotateConfig, ConfigError
from pipeline.demo import run as demo
from pipeline.ledger import Ledger, Summary
from pipeline.local import run_local
from pipeline.models import ModelError
from pipeline.options import parse
from pipeline.progress import print_failures, print_summary
from pipeline.shards import Shard, find_shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        config = parse(AnnotateConfig, "annotate.py", __doc__, arguments)
        is_demo = not config.input
        config = demo.configure(config) if is_demo else config
        summary = annotate(config)
    except (ConfigError, ModelError, FileNotFoundError) as error:
        print(f"annotate.py: {error}", file=sys.stderr)
        return 2
    if is_demo:
        demo.report(config.output)
    return 3 if summary.missing else 0


def annotate(config: AnnotateConfig) -> Summary:
    """Annotate every shard that is not committed yet, and say how it went."""
    started = time.monotonic()
    if not config.output:
        raise ConfigError("--output is needed: a directory or an s3:// or gs:// prefix")
    shards = find_shards(config.patterns, config.input_root)
    ledger = Ledger(config.output)
    ledger.open(config)
    committed = ledger.committed()
    todo = [shard for shard in shards if shard.name not in committed]
    print(f"{len(shards)} shards, {len(shards) - len(todo)} already committed", flush=True)
    if todo:
        _run(config, todo)
    summary = ledger.summarise(shards)
    print_summary(summary, config.output, time.monotonic() - started)
    print_failures(ledger.failures(), summary)
    return summary


def _run(config: AnnotateConfig, shards: list[Shard]) -> None:
    if config.engine.executor == "local":
        run_local(config, shards)
        return
    from pipeline.engine import run_on_ray  # Ray takes seconds to import

    run_on_ray(config, shards)


if __name__ == "__main__":
    sys.exit(main())
