"""Reading what an annotation run has written."""

from __future__ import annotations

import posixpath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import ConfigError
from pipeline.ledger import Ledger
from pipeline.shards import Shard


def image_id_of(key: str) -> str:
    """The image id that a sample's key stands for: its base name."""
    return posixpath.basename(key)


def predicted_shards(predictions: str) -> list[Shard]:
    """The annotation tables of a run, under the names of the shards that they are of.

    Raises:
        ConfigError: there is no run, or it has committed nothing.
    """
    commits = Ledger(predictions).commits()
    if not commits:
        raise ConfigError(f"--predictions {predictions}: no annotation run has committed there")
    shards = []
    for commit in commits:
        path = f"annotations/{commit.shard}.parquet"
        location = storage.join(predictions, *path.split("/"))
        shards.append(Shard(location, commit.uri, int(commit.files[path]["bytes"])))
    return shards


def read_table(predictions: str, path: str, columns: list[str] | None = None) -> pa.Table:
    """A table of the run, by its path below the output, footer and all."""
    data = storage.read_bytes(storage.join(predictions, *path.split("/")))
    return pq.read_table(pa.BufferReader(data), columns=columns)
