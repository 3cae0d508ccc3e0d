"""A finished or unfinished annotation run as its consumers read it, shard by shard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.errors import ConfigError, naming, one_line
from pipeline.inputs.classes import unlisted
from pipeline.outputs import index
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Commit


@dataclass(frozen=True)
class ShardMasks:
    """What a run has written of one shard.

    Attributes:
        commit: its record.
        images: rows of `images/`, of rejected samples too.
        annotations: rows of `annotations/`, sorted by (sample_index, prompt_index).
    """

    commit: Commit
    images: pa.Table
    annotations: pa.Table


class Predictions:
    """The output of an annotation run, of this version of the tables or an older one.

    Attributes:
        location: of the output.
        commits: the shards that are done, by name. Tables without a commit are passed over.
        identity: the settings that made the masks.
    """

    def __init__(self, location: str, flag: str = "--predictions") -> None:
        """Read what is done.

        Args:
            location: the `--output` of annotate.py or rethreshold.py.
            flag: the setting that names it, for messages.

        Raises:
            ConfigError: there is no such run, it has committed nothing, or it cannot be read.
        """
        if not location:
            raise ConfigError(f"{flag} is needed: the output of an annotation run")
        self.location, self._flag = location, flag
        self._ledger = Ledger(location)
        with naming(str(self)):
            self.identity = self._ledger.identity()
        if self.identity and "mask" not in self.identity:
            raise ConfigError(
                f"{self}: holds counts of an evaluation; name the output of an annotation run"
            )
        with naming(str(self)):
            self.commits = self._ledger.commits()
        if not self.identity or not self.commits:
            there = storage.find(location) if storage.is_uri(location) else os.path.exists(location)
            absent = "" if there else "; there is nothing at all at this place"
            raise ConfigError(f"{self}: no annotation run has committed there{absent}")

    def __str__(self) -> str:
        return f"{self._flag} {storage.public(self.location)}"

    @property
    def categories(self) -> dict[int, str]:
        """Name of every category by its id, those of a run that was not finished too.

        Raises:
            ConfigError: two have one id.
        """
        commits = self.commits
        if self.identity["schema_version"] == 1:
            commits = [replace(commit, names=self._unlisted(commit)) for commit in commits]
        found = index.categories(self._ledger.categories(), commits)
        return {category["id"]: category["name"] for category in found}

    @property
    def missing(self) -> dict[str, str]:
        """Shards that the run should have committed and has not → the reason."""
        return self._ledger.missing(self.commits)

    def read(
        self,
        commit: Commit,
        images: Sequence[str] | None = None,
        annotations: Sequence[str] | None = None,
    ) -> ShardMasks:
        """The tables of a shard, or some columns of them.

        Raises:
            ConfigError: they cannot be read.
        """
        return ShardMasks(
            commit,
            self._read("images", commit, images),
            self._read("annotations", commit, annotations),
        )

    def read_images(self, commit: Commit, columns: Sequence[str]) -> pa.Table:
        """Some columns of `images/` of a shard alone; raises as `read` does."""
        return self._read("images", commit, columns)

    def _unlisted(self, commit: Commit) -> list[str]:
        """What `Commit.names` says since version 2, of the categories that have masks."""
        table = self._read("annotations", commit, ["category", "category_id"])
        rows = (row for row in table.to_pylist() if row["category"] is not None)
        return unlisted({row["category"]: row["category_id"] for row in rows})

    def _read(self, folder: str, commit: Commit, columns: Sequence[str] | None) -> pa.Table:
        names: Any = None if columns is None else list(columns)
        try:
            return self._ledger.read(folder, commit.shard, names, commit=commit)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"{self}: {folder}/{commit.shard}.parquet cannot be read ({one_line(error)}); "
                f"delete commits/{commit.shard}.json and annotate that shard again"
            ) from error
