"""What a whole run has: its shards as a table, and its categories.

All of it can be made again from the commits, and is, whenever a run ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.inputs.classes import stable_id
from pipeline.outputs.records import STAGES, STATUSES, Commit
from pipeline.storage import parquet

SHARDS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        *(pa.field(status, pa.int64(), nullable=False) for status in STATUSES),
        pa.field("prompts", pa.int64(), nullable=False),
        pa.field("prompts_cut", pa.int64(), nullable=False),
        pa.field("masks", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        *(pa.field(f"{stage}_seconds", pa.float64()) for stage in STAGES),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("degraded", pa.bool_(), nullable=False),
        pa.field("incomplete", pa.string(), nullable=False),
    ]
)
"""One row per committed shard, by name."""


def shards_file(commits: Sequence[Commit]) -> bytes:
    """`shards.parquet`: where the images of every shard lie, and what became of them."""
    return parquet.of_rows([_shard_row(commit) for commit in commits], SHARDS)


def _shard_row(commit: Commit) -> dict[str, Any]:
    same = {name: getattr(commit, name) for name in SHARDS.names if hasattr(commit, name)}
    statuses = {name: commit.statuses.get(name, 0) for name in STATUSES}
    stages = {f"{stage}_seconds": commit.stages.get(stage) for stage in STAGES}
    return same | {"location": commit.uri} | statuses | stages


def categories(
    listed: Iterable[Mapping[str, Any]], commits: Iterable[Commit]
) -> list[dict[str, Any]]:
    """Id and name of every category, by id.

    Args:
        listed: those that are known, the class file's for one.
        commits: with names that are in no class file.

    Raises:
        ConfigError: two names have one id.
    """
    names = {int(category["id"]): str(category["name"]) for category in listed}
    for commit in commits:
        for name in commit.names:
            other = names.setdefault(stable_id(name), name)
            if other != name:
                raise ConfigError(
                    f"categories {other!r} and {name!r} have the same id {stable_id(name)}, which "
                    "is made of the name where no class file gives one: list one of them, with "
                    "another id, in --prompts.classes, and annotate again"
                )
    return [{"id": number, "name": names[number]} for number in sorted(names)]
