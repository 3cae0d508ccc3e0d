"""Reading what an annotation run has written."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32

import legrad
from pipeline import storage
from pipeline.config import ConfigError
from pipeline.ledger import Ledger
from pipeline.shards import Shard

Row = dict[str, Any]


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


def read_rows(predictions: str, path: str, columns: list[str] | None = None) -> list[Row]:
    """The rows of a table of the run, by its path below the output."""
    data = storage.read_bytes(storage.join(predictions, *path.split("/")))
    rows: list[Row] = pq.read_table(pa.BufferReader(data), columns=columns).to_pylist()
    return rows


def stored_heat(row: Mapping[str, Any]) -> Float32[np.ndarray, "height width"]:
    """The heatmap of a written mask, upsampled as it was when the mask was made."""
    grid = np.frombuffer(row["heat"], dtype=np.uint8).reshape(row["heat_shape"])
    raw = torch.from_numpy(grid.T.astype(np.float32))[None]
    heat: np.ndarray = legrad.heatmap(raw, size=(row["width"], row["height"]))[0].numpy().T
    return heat
