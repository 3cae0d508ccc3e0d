"""Make the masks of a run again at another threshold, from its stored heat, without a GPU.

    python jobs/rethreshold.py --source out --output out-07 --mask.threshold 0.7

Refinement needs the pixels too, which are not stored:

    python jobs/rethreshold.py --source out --output out-fine --images SHARDS --mask.refine pamr

Exit codes: 0 done, 2 a bad setting, 143 stopped.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

import torch

from pipeline.cli import ExitCode, run_command
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.rethreshold import RethresholdConfig, rethreshold
from pipeline.run.progress import print_summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(RethresholdConfig, "rethreshold.py", __doc__, arguments, run)


def run(config: RethresholdConfig) -> ExitCode:
    """Write the masks, and say how well the stored heat gives the source's own back."""
    started = time.monotonic()
    torch.set_num_threads(1)  # the maps are too small to share
    iou = rethreshold(config)
    lost = Ledger(config.source).failures()
    if lost:
        print(f"the source is not complete: {len(lost)} of its shards had failed")
    print_summary(Ledger(config.output).summary(), config.output, time.monotonic() - started)
    if math.isnan(iou):
        print("the source's own masks were not rebuilt: it has none, or they need --images")
    else:
        print(f"IoU of masks rebuilt from stored heat with the source's own: {iou:.4f}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
