"""What a whole run has: its shards as a table, and its categories.

All of it can be made again from the commits, and is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError
from pipeline.inputs.classes import stable_id
from pipeline.inputs.stages import STAGES
from pipeline.outputs.records import STATUSES, Commit
from pipeline.storage import Found, parquet

ROWS = 1000
"""Rows that are objects at once."""


def _counts(of: str) -> pa.DataType:
    return pa.list_(pa.struct([(of, pa.string()), ("count", pa.int64())]))


FILES = pa.list_(pa.struct([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())]))
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
        *(pa.field(f"{stage}_processor_seconds", pa.float64()) for stage in STAGES),
        pa.field("threads", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("degraded", pa.bool_(), nullable=False),
        pa.field("incomplete", pa.string(), nullable=False),
        pa.field("modified", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("statuses", _counts("status"), nullable=False),
        pa.field("rejects", _counts("reason"), nullable=False),
        pa.field("names", pa.list_(pa.string()), nullable=False),
        pa.field("files", FILES, nullable=False),
        pa.field("commit_bytes", pa.int64()),
        pa.field("commit_written", pa.string()),
    ]
)
"""One row per committed shard, by name: all that its commit says, and which commit this was."""
STAMP = ("commit_bytes", "commit_written")
"""Size and time of the commit that a row was made of, as `storage.Found` has them; null where a
commit that was written at once after it could have had the same."""
PLAIN = tuple(
    name
    for name in SHARDS.names
    if name in Commit.__dataclass_fields__ and not pa.types.is_nested(SHARDS.field(name).type)
)
"""Columns that are fields of a commit as they are."""


@dataclass(frozen=True)
class CommitTable:
    """Commits by the name of their shard, in a fraction of the memory that objects take.

    Attributes:
        table: a row for each, with the columns of `SHARDS`.
    """

    table: pa.Table

    @classmethod
    def of(
        cls, commits: Iterable[Commit], stamps: Mapping[str, Found] | None = None
    ) -> CommitTable:
        """Some commits as a table.

        Args:
            commits: in any order, each of another shard.
            stamps: shard → what is said of its commit's file.
        """
        return cls(SHARDS.empty_table()).replaced((), commits, stamps)

    @classmethod
    def from_bytes(cls, data: bytes) -> CommitTable | None:
        """The table in a file; None where a release has written it that kept less in it.

        Raises:
            OSError: it is damaged.
            pyarrow.ArrowException: it is damaged, or no Parquet file.
        """
        table = parquet.from_bytes(data)
        if not set(SHARDS.names) <= set(table.column_names):
            return None
        return cls(table.select(SHARDS.names).cast(SHARDS))

    def to_bytes(self, unstamped: Collection[str] = ()) -> bytes:
        """A file with the table, with no stamp for some of the shards."""
        table = self.table
        if unstamped:
            known = pc.invert(pc.is_in(table["shard"], pa.array(list(unstamped), pa.string())))
            for name in STAMP:
                kept = pc.if_else(known, table[name], pa.scalar(None, SHARDS.field(name).type))
                table = table.set_column(SHARDS.get_field_index(name), SHARDS.field(name), kept)
        return parquet.to_bytes(table)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Commit]:
        for batch in self.table.to_batches(max_chunksize=ROWS):
            yield from _commits(batch)

    @property
    def names(self) -> list[str]:
        """Of the shards, sorted."""
        return [shard for (shard,) in self.rows("shard")]

    def rows(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """The values of some columns, row by row, in the order of the names."""
        for batch in self.table.select(columns).to_batches(max_chunksize=ROWS):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def files(self, folder: str) -> Iterator[tuple[str, str, int]]:
        """Shard, path and bytes of every committed file in a folder."""
        for batch in self.table.to_batches(max_chunksize=ROWS):
            shards = batch["shard"].to_pylist()
            for shard, files in zip(shards, _tuples(batch["files"]), strict=True):
                for path, size, _ in files:
                    if path.startswith(f"{folder}/"):
                        yield shard, path, size

    def without(self, shards: Collection[str]) -> CommitTable:
        """All but the rows of some shards."""
        return self.replaced(shards, ())

    def replaced(
        self,
        gone: Collection[str],
        commits: Iterable[Commit],
        stamps: Mapping[str, Found] | None = None,
    ) -> CommitTable:
        """All but the rows of some shards, and rows for some commits; see `of`.

        Only those parts of the table are copied in which a row goes or comes.
        """
        fresh = _in_order(pa.Table.from_batches(_batches(commits, stamps or {}), SHARDS))
        if not len(self):
            return CommitTable(fresh) if len(fresh) else self
        names = fresh["shard"].to_pylist()
        parts = self.table.to_batches(max_chunksize=ROWS)
        firsts = [part["shard"][0].as_py() for part in parts[1:]]
        cuts = [0, *(bisect_left(names, first) for first in firsts), len(names)]
        made, changed = [], False
        for part, (start, stop) in zip(parts, pairwise(cuts), strict=True):
            stays = [name not in gone for name in part["shard"].to_pylist()]
            if not all(stays) or start < stop:
                rest = pa.Table.from_batches([part.filter(pa.array(stays, pa.bool_()))])
                both = _in_order(pa.concat_tables([rest, fresh.slice(start, stop - start)]))
                made += [some for some in both.to_batches() if len(some)]
                changed = True
            else:
                made.append(part)
        return CommitTable(pa.Table.from_batches(made, SHARDS)) if changed else self


def _in_order(table: pa.Table) -> pa.Table:
    """The same rows by name; a copy only where they are not."""
    order = pc.sort_indices(table["shard"])
    is_so = order.equals(pa.array(np.arange(len(table), dtype=np.uint64)))
    return table if is_so else table.take(order)


def _batches(commits: Iterable[Commit], stamps: Mapping[str, Found]) -> list[pa.RecordBatch]:
    source, batches = iter(commits), []
    while some := list(islice(source, ROWS)):
        rows = [_row(commit, stamps.get(commit.shard)) for commit in some]
        batches.append(pa.RecordBatch.from_pylist(rows, schema=SHARDS))
    return batches


def _row(commit: Commit, stamp: Found | None) -> dict[str, Any]:
    size, written = stamp or (None, None)
    return {
        **{name: getattr(commit, name) for name in PLAIN},
        "location": commit.uri,
        **{name: commit.statuses.get(name, 0) for name in STATUSES},
        **{f"{stage}_seconds": commit.stages.get(stage) for stage in STAGES},
        **{f"{stage}_processor_seconds": commit.processor.get(stage) for stage in STAGES},
        "statuses": [{"status": name, "count": n} for name, n in commit.statuses.items()],
        "rejects": [{"reason": name, "count": n} for name, n in commit.rejects.items()],
        "names": commit.names,
        "files": [{"path": path} | file for path, file in commit.files.items()],
        "commit_bytes": size,
        "commit_written": written,
    }


def _commits(batch: pa.RecordBatch) -> Iterator[Commit]:
    """The commits of some rows; the opposite of `_row`."""
    columns = {name: batch[name].to_pylist() for name in (*PLAIN, "location", "names")}
    nested = zip(*(_tuples(batch[name]) for name in ("statuses", "rejects", "files")), strict=True)
    stages, processor = _by_stage(batch, "seconds"), _by_stage(batch, "processor_seconds")
    for row, (statuses, rejects, files), seconds, used in zip(
        zip(*columns.values(), strict=True), nested, stages, processor, strict=True
    ):
        fields = dict(zip(columns, row, strict=True))
        yield Commit(
            uri=fields.pop("location"),
            **fields,
            statuses=dict(statuses),
            rejects=dict(rejects),
            files={path: {"bytes": size, "sha256": digest} for path, size, digest in files},
            stages=seconds,
            processor=used,
        )


def _by_stage(batch: pa.RecordBatch, of: str) -> Iterator[dict[str, float]]:
    """For every row, the stages of which something is known."""
    columns = (batch[f"{stage}_{of}"].to_pylist() for stage in STAGES)
    for row in zip(*columns, strict=True):
        yield {stage: took for stage, took in zip(STAGES, row, strict=True) if took is not None}


def _tuples(lists: pa.ListArray) -> Iterator[list[tuple[Any, ...]]]:
    """Lists of structs as lists of tuples: column by column, ten times as fast as all at once."""
    values = zip(*(field.to_pylist() for field in lists.flatten().flatten()), strict=True)
    for length in pc.list_value_length(lists).to_pylist():
        yield list(islice(values, length))


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
