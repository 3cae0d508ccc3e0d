r"""Find levels of presence, thresholds and probabilities on images whose contents are known.

    python jobs/calibrate.py --predictions out --coco truth.json --classes classes.yaml \
        --output calibrated
    python jobs/annotate.py ... --prompts.source vocabulary \
        --prompts.classes calibrated/classes.yaml --prompts.calibration calibrated/calibration.json

The run needs pairs that are not there: --prompts.source vocabulary --prompts.presence -1.
Exit codes: 0 done, 2 a bad setting, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from pipeline import storage
from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.stage import calibrate
from pipeline.calibration.write import PAGE
from pipeline.cli import ExitCode, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(CalibrateConfig, "calibrate.py", __doc__, arguments, run, goes_on=False)


def run(config: CalibrateConfig) -> ExitCode:
    """Write the files, and say what was found."""
    torch.set_num_threads(1)  # the maps are too small to share
    for line in calibrate(config)[1]:
        print(line)
    print(f"Look at {storage.shown(storage.join(config.output, PAGE))}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
