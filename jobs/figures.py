r"""Draw the maps of images and prompts side by side: by layer, or by method; for one or more CLIPs.

    python jobs/figures.py methods --images cat.jpg --prompts cat --output maps.png \
        --models '[{name: ViT-B-16, pretrained: laion2b_s34b_b88k}]'

Exit codes: 0 done, 2 a bad setting or a model does not load, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pipeline import storage
from pipeline.cli import ExitCode, run_command
from pipeline.config.weights import licence
from pipeline.figures.config import LayersConfig, MethodsConfig
from pipeline.figures.draw import draw

COMMANDS: dict[str, Any] = {"layers": LayersConfig, "methods": MethodsConfig}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command not in COMMANDS:
        print(f"{__doc__}\nCommands: {', '.join(COMMANDS)}; each has --help.")
        return ExitCode.DONE if command in ("-h", "--help") else ExitCode.BAD_SETTING
    kind = COMMANDS[command]
    return run_command(kind, f"figures.py {command}", kind.__doc__, rest, run, goes_on=False)


def run(config: LayersConfig | MethodsConfig) -> ExitCode:
    """Draw, and say where."""
    picture = draw(config)
    for terms in sorted({licence(m.name, m.pretrained) for m in config.models} - {""}):
        print(terms)
    print(f"Look at {storage.shown(config.output)} ({picture.width} x {picture.height} pixels)")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
