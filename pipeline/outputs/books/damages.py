"""Whether the tables of an output are still those that were committed."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import storage
from pipeline.outputs.index import CommitTable
from pipeline.outputs.records import Commit, file_record
from pipeline.storage.json_files import JsonFiles


def by_size(files: JsonFiles, commits: CommitTable, folders: Sequence[str]) -> dict[str, str]:
    """Name of every shard with a table of another size, or without one → what is wrong.

    One listing for each of the `folders` that has tables.
    """
    found = {}
    for folder in folders:
        there = None
        for shard, path, size in commits.files(folder):
            if there is None:
                there = storage.list_files(files.path(folder))
            file = there.get(path.rpartition("/")[2])
            if wrong := _other_size(path, size, file.size if file else None):
                found[shard] = wrong
    return found


def by_contents(files: JsonFiles, commit: Commit) -> str:
    """What is wrong with the tables of a shard, which are read for it; empty if nothing.

    Raises:
        OSError: one of them cannot be read, which says nothing about it.
    """
    for path, file in commit.files.items():
        size = int(file["bytes"])
        try:
            found = file_record(storage.read_bytes(files.path(path)))
        except FileNotFoundError:
            return _other_size(path, size, None)
        if found != file:
            other = _other_size(path, size, int(found["bytes"]))
            return other or f"{path} has other contents than were committed"
    return ""


def _other_size(path: str, committed: int, found: int | None) -> str:
    """What to say of a table that is gone or has another size; empty of one that has its own."""
    if found is None:
        return f"{path} is gone"
    return "" if found == committed else f"{path} has {found:,} of {committed:,} bytes"
