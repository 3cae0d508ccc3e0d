"""Which shards a run has given up, and why: `failed/<shard>.json`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pipeline.errors import one_line
from pipeline.inputs.shards import Shard
from pipeline.log import Event, say
from pipeline.outputs.records import Failure
from pipeline.storage import is_transient
from pipeline.storage.json_files import JsonFiles

FOLDER = "failed"


class Failures:
    """The records of shards that were given up. A commit that came later is the truth.

    What cannot be written down is known to this process only.
    """

    def __init__(self, files: JsonFiles) -> None:
        self._files = files
        self._unwritten: dict[str, Failure] = {}

    def names(self) -> set[str]:
        """Of the shards that have such a record."""
        return self._files.names(FOLDER) | self._unwritten.keys()

    def write(self, shard: Shard, failure: Failure, fingerprint: str) -> None:
        """Record that the run with that fingerprint has given a shard up.

        Where that can never be written, it is said.

        Raises:
            OSError: it cannot be written now.
        """
        record = {
            "shard": shard.name,
            "uri": shard.uri,
            "reason": failure.reason,
            "kind": "transient" if failure.transient else "permanent",
            "fingerprint": fingerprint,
        }
        try:
            self._files.write(f"{FOLDER}/{shard.name}.json", record)
        except OSError as error:
            if is_transient(error):
                raise
            self._unwritten[shard.name] = failure
            why = one_line(error, kind=True)
            line = f"not recorded: {shard.name}: {why}; the next run tries this shard again"
            say(Event("not_recorded", line, "warning", shard=shard.name, reason=why))
        else:
            self._unwritten.pop(shard.name, None)

    def forgive(self, committed: Collection[str]) -> None:
        """Take away the records of committed shards; where nothing may be deleted, it is said.

        Raises:
            OSError: it cannot be done now.
        """
        for shard in self.names().intersection(committed):
            try:
                self.remove(shard)
            except OSError as error:
                if is_transient(error):
                    raise
                why = one_line(error, kind=True)
                line = f"not removed: {FOLDER}/{shard}.json, though the shard is committed: {why}"
                say(Event("not_removed", line, "warning", shard=shard, reason=why))

    def remove(self, shard: str) -> None:
        """Take the record away, if there is one."""
        self._unwritten.pop(shard, None)
        self._files.remove(f"{FOLDER}/{shard}.json")

    def read(self, names: Iterable[str], own: str | None) -> dict[str, Failure]:
        """Of some shards, by name, what the run with the fingerprint `own` says; None for any.

        Records of before they had a kind are permanent.
        """
        wanted = set(names)
        known = {name: why for name, why in self._unwritten.items() if name in wanted}
        return known | {
            name: Failure(record["reason"], record.get("kind") == "transient")
            for name, record in self._files.records(FOLDER, wanted - known.keys())
            if own in (record.get("fingerprint", own), None)
        }
