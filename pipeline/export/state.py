"""What is done of an export: a record per shard while it works, one file in the end.

`export/state.json` says `running` from the first to the last moment of the work: in a folder of its
own, for there are clients that read every .json file beside a COCO file. The files that a client
opens first are written last, so that an export that was interrupted never looks complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.outputs.records import Commit
from pipeline.outputs.selection import Dropped
from pipeline.storage import digests
from pipeline.storage.json_files import JsonFiles

STATE = "export/state.json"


@dataclass
class Totals:
    """What was counted.

    Attributes:
        images: written.
        taken: objects by the name of their category.
        dropped: masks by setting and the name of their category.
        lost: what the format cannot say → how often.
    """

    images: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    dropped: Dropped = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        """Add those of another shard."""
        self.images += other.images
        self.taken.update(other.taken)
        self.dropped.update(other.dropped)
        self.lost.update(other.lost)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        dropped = [[setting, name, count] for (setting, name), count in self.dropped.items()]
        return {
            "images": self.images,
            "taken": dict(self.taken),
            "dropped": sorted(dropped),
            "lost": dict(self.lost),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Totals:
        """Back from JSON values."""
        dropped = {(setting, name): count for setting, name, count in values["dropped"]}
        return cls(
            values["images"],
            Counter(values["taken"]),
            Counter(dropped),
            Counter(values["lost"]),
        )


class State:
    """The records of an export in its output.

    Attributes:
        output: where it is.
        parts: folder below it for what is kept of each shard; another one for other settings.
    """

    def __init__(self, output: str, identity: dict[str, Any]) -> None:
        """Name the places.

        Args:
            output: where the export is.
            identity: what decides its contents beside the shards, as JSON values.
        """
        self.output, self._files = output, JsonFiles(output)
        self._identity = json.loads(json.dumps(identity))
        self.parts = f"export/parts-{digests.of_text(json.dumps(self._identity, sort_keys=True))}"

    def path(self, path: str) -> str:
        """The location of a path below the output."""
        return self._files.path(path)

    def open(self, commits: Sequence[Commit], last_files: Sequence[str]) -> Totals | None:
        """Begin, or go on.

        Args:
            commits: the shards.
            last_files: paths of what is there when the export is complete.

        Returns:
            The totals, where all of it is complete already.

        Raises:
            ConfigError: another export is here.
            OSError: nothing can be written here.
        """
        shards = {commit.shard: fingerprint(commit) for commit in commits}
        known: list[str] = []
        if self._files.exists(STATE):
            before = self.check_owner()
            same = before["state"] == "complete" and before["shards"] == shards
            if same and all(map(self._files.exists, last_files)):
                return Totals.from_json(before["totals"])
            known = sorted(before["shards"])
            if gone := set(known) - shards.keys():
                raise ConfigError(
                    f"--output {storage.public(self.output)}: holds files of {len(gone)} shards "
                    f"that the run no longer has ({min(gone)}); name another place, or delete it"
                )
        state = {"state": "running", "made_with": self._identity, "shards": known}
        self._files.write(STATE, state)
        return None

    def give_up(self) -> None:
        """Take back that an export was begun here: there is nothing to export."""
        self._clear_parts()
        self._files.remove(STATE)

    def check_owner(self) -> dict[str, Any]:
        """What the output says of its export, which has to be this one.

        Raises:
            ConfigError: another export is here, or has just begun.
        """
        found: dict[str, Any] = self._files.record(STATE)
        made_with, now = found["made_with"], self._identity
        names = sorted(made_with.keys() | now.keys())
        changed = [name for name in names if made_with.get(name) != now.get(name)]
        if changed:
            raise ConfigError(
                f"--output {storage.public(self.output)}: holds another export (with another "
                f"{', '.join(changed)}); name another place, or delete it"
            )
        return found

    def done(self, commits: Iterable[Commit]) -> dict[str, Totals]:
        """Totals of the shards that are done, by name, and whose tables are still the same."""
        wanted = {commit.shard: fingerprint(commit) for commit in commits}
        return {
            shard: Totals.from_json(record["totals"])
            for shard, record in self._files.records(self.parts, self._files.names(self.parts))
            if record["shard"] == wanted.get(shard)
        }

    def record(self, commit: Commit, totals: Totals) -> None:
        """Say that a shard is done; its files are written before."""
        record = {"shard": fingerprint(commit), "totals": totals.to_json()}
        self._files.write(f"{self.parts}/{commit.shard}.json", record)

    def close(self, commits: Sequence[Commit], totals: Totals) -> None:
        """Say that the export is complete, and clear away what it took to make it."""
        shards = {commit.shard: fingerprint(commit) for commit in commits}
        content = {"state": "complete", "made_with": self._identity, "totals": totals.to_json()}
        self._files.write(STATE, content | {"shards": shards})
        self._clear_parts()

    def _clear_parts(self) -> None:
        # Records first: without one, a shard is done again, whatever else is left of it.
        for name in sorted(storage.list_names(self.path(self.parts)), key=_is_no_record):
            self._files.remove(f"{self.parts}/{name}")


def fingerprint(commit: Commit) -> str:
    """Another text when the tables of a shard are others."""
    return digests.of_text(json.dumps(commit.files, sort_keys=True))


def _is_no_record(name: str) -> bool:
    return not name.endswith(".json")
