r"""Say how good masks or maps are; one command per metric.

    python jobs/evaluate.py points --predictions out --points points.csv --descriptions names.csv

Exit codes: 0 everything was counted (or no more than --allow_failed shards are missing), 2 a bad
setting or the model does not load, 3 finished but shards are missing, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.cli import parse
from pipeline.errors import ConfigError, ModelError
from pipeline.evaluation.layers.stage import LayersConfig, study_layers
from pipeline.evaluation.perturbation.stage import PerturbationConfig, score_perturbation
from pipeline.evaluation.points.stage import PointsConfig, score_points
from pipeline.evaluation.segmentation.stage import SegmentationConfig, score_segmentation
from pipeline.run.executors import STOPPED
from pipeline.storage import join, read_bytes

COMMANDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "points": (PointsConfig, score_points),
    "segmentation": (SegmentationConfig, score_segmentation),
    "perturbation": (PerturbationConfig, score_perturbation),
    "layers": (LayersConfig, study_layers),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command not in COMMANDS:
        print(f"{__doc__}\nCommands: {', '.join(COMMANDS)}; each has --help.")
        return 0 if command in ("-h", "--help") else 2
    kind, evaluate = COMMANDS[command]
    try:
        config = parse(kind, f"evaluate.py {command}", kind.__doc__, rest).located()
        result = evaluate(config)
    except (
        ConfigError,
        ModelError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
    ) as error:
        print(f"evaluate.py {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"evaluate.py {command}: stopped; the same command goes on", file=sys.stderr)
        return STOPPED
    print(read_bytes(join(config.output, "metrics.md")).decode())
    return 3 if len(result.merged.missing) > config.allow_failed else 0


if __name__ == "__main__":
    sys.exit(main())
