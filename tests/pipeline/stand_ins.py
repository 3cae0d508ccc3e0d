"""What a run has written, for comparison; and the types of the fixtures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.config import AnnotateConfig
from pipeline.outputs.ledger import Ledger

Rows = list[dict[str, Any]]
Annotate = Callable[..., Ledger]
MakeConfig = Callable[..., AnnotateConfig]
Tree = Callable[[str], dict[str, bytes]]
Write = Callable[..., str]
Labelled = Callable[..., list[tuple[str, bytes]]]
MakeTar = Callable[..., bytes]


def rows(ledger: Ledger, table: str) -> Rows:
    """All rows of `annotations` or `images`, shard by shard."""
    files = sorted(Path(ledger.output, table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def results(tree: dict[str, bytes]) -> dict[str, bytes]:
    """What must be the same in every run of the same configuration."""
    return {path: data for path, data in tree.items() if path.startswith(("annotations", "images"))}
