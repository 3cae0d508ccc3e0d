r"""Write the masks of a run in the format of another tool, or check such a file.

    python jobs/export.py coco --predictions out --output out-coco --select.score 0.2
    python jobs/export.py validate out-coco/instances.json

Exit codes: 0 done, 1 validate has found something, 2 a bad setting, 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pipeline.cli import ExitCode, run_command
from pipeline.export.coco import Coco, CocoConfig, CocoResults, CocoResultsConfig
from pipeline.export.huggingface import Hf, HfConfig
from pipeline.export.report import print_totals
from pipeline.export.run import export
from pipeline.export.semantic import Semantic, SemanticExportConfig
from pipeline.export.tars import WebDataset, WebDatasetConfig
from pipeline.export.validate import ValidateConfig, validate
from pipeline.export.yolo import Yolo, YoloConfig

FORMATS: dict[str, tuple[Any, Any]] = {
    "coco": (CocoConfig, Coco),
    "coco-results": (CocoResultsConfig, CocoResults),
    "semantic": (SemanticExportConfig, Semantic),
    "hf": (HfConfig, Hf),
    "webdataset": (WebDatasetConfig, WebDataset),
    "yolo": (YoloConfig, Yolo),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command == "validate":
        if rest and not rest[0].startswith("-"):
            rest = ["--file", *rest]
        about = ValidateConfig.__doc__
        return run_command(ValidateConfig, "export.py validate", about, rest, check, goes_on=False)
    if command not in FORMATS:
        print(f"{__doc__}\nCommands: {', '.join(FORMATS)}, validate; each has --help.")
        return ExitCode.DONE if command in ("-h", "--help") else ExitCode.BAD_SETTING
    kind, written = FORMATS[command]

    def run(config: Any) -> ExitCode:
        print_totals(export(config, written), config.output)
        return ExitCode.DONE

    return run_command(kind, f"export.py {command}", kind.__doc__, rest, run)


def check(config: ValidateConfig) -> ExitCode:
    """Print a line for every finding."""
    found = 0
    for found, finding in enumerate(validate(config), 1):
        if found <= config.most:
            print(finding, flush=True)
    print(
        f"{config.file}: {found:,} finding{'s' if found > 1 else ''}"
        if found
        else f"{config.file}: no findings"
    )
    return ExitCode.FINDINGS if found else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
