"""Which shards a run has given up, and why: `failed/<shard>.json`."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.inputs.shards import Shard
from pipeline.outputs.records import Failure
from pipeline.storage.json_files import JsonFiles

FOLDER = "failed"


class Failures:
    """The records of shards that were given up. A commit that came later is the truth."""

    def __init__(self, files: JsonFiles) -> None:
        self._files = files

    def names(self) -> set[str]:
        """Of the shards that have such a record."""
        return self._files.names(FOLDER)

    def write(self, shard: Shard, failure: Failure, fingerprint: str) -> None:
        """Record that the run with that fingerprint has given a shard up."""
        record = {
            "shard": shard.name,
            "uri": shard.uri,
            "reason": failure.reason,
            "kind": "transient" if failure.transient else "permanent",
            "fingerprint": fingerprint,
        }
        self._files.write(f"{FOLDER}/{shard.name}.json", record)

    def remove(self, shard: str) -> None:
        """Take the record away, if there is one."""
        self._files.remove(f"{FOLDER}/{shard}.json")

    def read(self, names: Iterable[str], own: str | None) -> dict[str, Failure]:
        """Of some shards, by name, what the run with the fingerprint `own` says; None for any.

        Records of before they had a kind are permanent.
        """
        return {
            name: Failure(record["reason"], record.get("kind") == "transient")
            for name, record in self._files.records(FOLDER, names)
            if own in (record.get("fingerprint", own), None)
        }
