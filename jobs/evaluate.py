r"""Say how good masks or maps are; one command per metric.

    python jobs/evaluate.py points --predictions out --points points.csv --descriptions names.csv

Exit codes: 0 everything was counted (or no more than --allow_failed shards are missing), 2 a bad
setting or the model does not load, 3 finished but shards are missing, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline import storage
from pipeline.cli import ExitCode, run_command
from pipeline.evaluation.funnybirds.stage import FunnyBirdsConfig, score_funnybirds
from pipeline.evaluation.layers.stage import LayersConfig, study_layers
from pipeline.evaluation.perturbation.stage import PerturbationConfig, score_perturbation
from pipeline.evaluation.points.stage import PointsConfig, score_points
from pipeline.evaluation.prompted.config import PromptedConfig
from pipeline.evaluation.prompted.stage import score_prompted
from pipeline.evaluation.segmentation.stage import SegmentationConfig, score_segmentation

COMMANDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "points": (PointsConfig, score_points),
    "segmentation": (SegmentationConfig, score_segmentation),
    "perturbation": (PerturbationConfig, score_perturbation),
    "layers": (LayersConfig, study_layers),
    "funnybirds": (FunnyBirdsConfig, score_funnybirds),
    "prompted": (PromptedConfig, score_prompted),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command not in COMMANDS:
        print(f"{__doc__}\nCommands: {', '.join(COMMANDS)}; each has --help.")
        return ExitCode.DONE if command in ("-h", "--help") else ExitCode.BAD_SETTING
    kind, evaluate = COMMANDS[command]

    def run(config: Any) -> ExitCode:
        config = config.absolute()
        result = evaluate(config)
        print(storage.read_bytes(storage.join(config.output, "metrics.md")).decode())
        missing = len(result.merged.missing) > config.allow_failed
        return ExitCode.SHARDS_MISSING if missing else ExitCode.DONE

    return run_command(kind, f"evaluate.py {command}", kind.__doc__, rest, run)


if __name__ == "__main__":
    sys.exit(main())
