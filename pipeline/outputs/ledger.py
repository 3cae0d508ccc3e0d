"""What is done: the files of an output directory other than the tables themselves.

The commit of a shard is written last, after its tables. It alone says that the shard is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.config import SCHEMA_VERSION, fingerprint
from pipeline.errors import ConfigError, TakenOver, one_line
from pipeline.inputs.shards import Shard
from pipeline.outputs import index, versions
from pipeline.outputs.heartbeat import Driver
from pipeline.outputs.records import Commit, Summary, file_record
from pipeline.storage.json_files import JsonFiles

LONGEST_SHOWN = 200
TABLES = ("annotations", "images", "counts")
"""Folders with a file for every shard."""
PACKAGES = ("torch", "torchvision", "open_clip_torch", "pyarrow", "pycocotools", "webdataset")


class Ledger:
    """The output directory of a run.

    Attributes:
        output: where it is.
        fingerprint: of the run that was opened here; empty for a reader.
        driver: this process, as a driver of the run.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self._files = JsonFiles(output)
        self.fingerprint = ""
        self.driver = Driver()

    def open(
        self,
        identity: dict[str, Any],
        config: dict[str, Any],
        categories: Sequence[Mapping[str, Any]],
        redo: bool = False,
    ) -> None:
        """Start a run here, or go on with one.

        The settings are written before anything is deleted: from then on whoever works here with
        other ones can commit nothing more, and what it still commits is not believed.

        Args:
            identity: the settings that change what is written for a shard, as JSON values.
            config: all settings, for people.
            categories: id and name of every class of the class file.
            redo: delete what other settings made, and start over.

        Raises:
            ConfigError: what is here was made with settings that give other results.
        """
        self.fingerprint = fingerprint(identity)
        changes = self.changes(identity)
        if changes and not redo and (self.committed() or self.other_driver()):
            raise ConfigError(
                f"--output {self.output} holds results of another configuration "
                f"({'; '.join(changes)}); choose another output, or --on_mismatch redo"
            )
        if changes or not self._files.exists("run.json"):
            self._files.write(
                "run.json",
                {
                    "schema_version": SCHEMA_VERSION,
                    "fingerprint": self.fingerprint,
                    "results": identity,
                    "config": config,
                    "versions": {name: version(name) for name in PACKAGES},
                },
            )
        if changes:
            self._clear()
        if changes or not self._files.exists("categories.json"):
            self._files.write("categories.json", list(categories))

    def run(self) -> dict[str, Any]:
        """What `run.json` says: settings, fingerprint, versions; empty where there is no run."""
        if not self._files.exists("run.json"):
            return {}
        content = self._files.record("run.json")
        if content.get("schema_version", 1) > SCHEMA_VERSION:
            raise ConfigError(
                f"{self._files.path('run.json')}: has schema version {content['schema_version']}, "
                f"and this release knows up to {SCHEMA_VERSION}: use the release that made it"
            )
        return content

    def identity(self) -> dict[str, Any]:
        """The settings that made what is here; empty where there is no run."""
        identity: dict[str, Any] = self.run().get("results", {})
        return identity

    def is_here(self) -> bool:
        """Whether this process finds the run that was opened: its disk may be another one."""
        return fingerprint(self.identity()) == self.fingerprint

    def check_owner(self, mine: str) -> None:
        """Make sure that the run here is still one's own.

        Args:
            mine: its fingerprint.

        Raises:
            TakenOver: it is another one.
        """
        found = self.identity()
        if found and fingerprint(found) != mine:
            raise TakenOver(
                f"--output {storage.public(self.output)}: another run, with other settings, has "
                "taken it over; this one stops"
            )

    def changes(self, identity: dict[str, Any]) -> list[str]:
        """In which settings the run that is here differs; empty where there is none."""
        before = self.identity()
        if not before:
            return self._changed_fingerprint(fingerprint(identity))
        old, new = flattened(before), flattened(json.loads(json.dumps(identity)))
        return [
            f"{key}: {_shown(old.get(key))} there, {_shown(new.get(key))} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]

    def _changed_fingerprint(self, now: str) -> list[str]:
        """The same where `run.json` was lost, so that only the commits tell."""
        names = sorted(self.committed())[:1]
        there = [content["fingerprint"] for _, content in self._files.records("commits", names)]
        return [
            f"fingerprint: {old} there, {now} now, and no run.json" for old in there if old != now
        ]

    def committed(self) -> set[str]:
        """Names of the shards that are done."""
        return self._files.names("commits")

    def commit(self, commit: Commit, tables: Mapping[str, bytes]) -> None:
        """Write the tables of a shard, then the record that it is done.

        Args:
            commit: the record.
            tables: path below the output → complete file.

        Raises:
            TakenOver: the run that is here now has other settings.
        """
        self.check_owner(commit.fingerprint)
        for path, data in tables.items():
            storage.write_bytes(self._files.path(path), data)
        self.check_owner(commit.fingerprint)  # tables may take long
        self._files.write(f"commits/{commit.shard}.json", asdict(commit))
        self._files.remove(f"failed/{commit.shard}.json")

    def fail(self, shard: Shard, reason: str) -> None:
        """Record that a shard was given up, and why; a later commit takes the record away.

        Raises:
            TakenOver: the run that is here now has other settings.
        """
        self.check_owner(self.fingerprint)
        record = {"shard": shard.name, "uri": shard.uri, "reason": reason}
        self._files.write(f"failed/{shard.name}.json", record | {"fingerprint": self.fingerprint})

    def forget(self, shards: Iterable[str]) -> None:
        """Take back shards with all that was written for them, so that they are done again."""
        for shard in shards:
            for path in (f"commits/{shard}.json", f"failed/{shard}.json"):
                self._files.remove(path)
            for folder in TABLES:
                self._files.remove(f"{folder}/{shard}.parquet")

    def failed(self) -> set[str]:
        """Names of the shards that were given up."""
        return set(self.failures())

    def failures(self) -> dict[str, str]:
        """Name of every shard that this run has given up → the reason."""
        own = self._own()
        return {
            name: record["reason"]
            for name, record in self._files.records("failed", self._files.names("failed"))
            if own in (record.get("fingerprint", own), None)
        }

    def missing(self, commits: Iterable[Commit]) -> dict[str, str]:
        """Name of every shard that the run should have committed and has not → the reason.

        Args:
            commits: all that there are.
        """
        reasons = self.failures()
        known = self._files.exists("summary.json")
        planned = self._files.read("summary.json")["missing"] if known else []
        absent = {*planned, *reasons, *self.committed()} - {commit.shard for commit in commits}
        return {name: reasons.get(name, "not done yet") for name in sorted(absent)}

    def categories(self) -> list[dict[str, Any]]:
        """Id and name of every category; while a run works, of those of the class file."""
        categories: list[dict[str, Any]] = self._files.read("categories.json")
        return categories

    def write_index(self, commits: Sequence[Commit]) -> None:
        """Write `shards.parquet` and `categories.json` anew.

        Args:
            commits: all that are here.

        Raises:
            ConfigError: two categories have one id.
        """
        storage.write_bytes(self._files.path("shards.parquet"), index.shards_file(commits))
        self._files.write("categories.json", index.categories(self.categories(), commits))

    def write_card(self, card: bytes) -> None:
        """Write `README.md`, as `pipeline.outputs.card` makes it."""
        storage.write_bytes(self._files.path("README.md"), card)

    def read(
        self,
        folder: str,
        shard: str,
        columns: list[str] | None = None,
        optional: Sequence[str] = (),
        commit: Commit | None = None,
    ) -> pa.Table:
        """The table of a shard in one of `TABLES`; see `versions.read`.

        Whichever version wrote it, it is as this one would have written it.

        Raises:
            OSError: it cannot be read, or is not what `commit` says.
        """
        path = f"{folder}/{shard}.parquet"
        data = storage.read_bytes(self._files.path(path))
        if commit is not None and commit.files.get(path) != file_record(data):
            raise OSError("it is not the table that was committed")
        return versions.read(data, columns, optional)

    def commits(self, known: Iterable[Commit] = ()) -> list[Commit]:
        """Every commit of the run, by shard name; those that are `known` are not read again.

        What a run with other settings has left here, or still leaves, is not believed.
        """
        names = self.committed()
        commits = {commit.shard: commit for commit in known if commit.shard in names}
        own = self._own()
        for name, content in self._files.records("commits", names - commits.keys()):
            if own in (content.get("fingerprint"), None):
                commits[name] = self._commit(name, content)
        return [commits[name] for name in sorted(commits)]

    def _own(self) -> str | None:
        """The fingerprint of the run here; None where `run.json` was lost."""
        return self.fingerprint or self.run().get("fingerprint")

    def _commit(self, name: str, content: dict[str, Any]) -> Commit:
        try:
            return Commit(**content)
        except TypeError as error:
            raise self._files.damaged(f"commits/{name}.json", one_line(error)) from error

    def damages(self, commits: Iterable[Commit]) -> dict[str, str]:
        """Name of every shard whose tables are not those that were committed → what is wrong.

        One listing for each folder: sizes are compared, contents are not.
        """
        sizes = {
            f"{folder}/{name}": size
            for folder in TABLES
            for name, size in storage.list_files(self._files.path(folder)).items()
        }
        found = {}
        for commit in commits:
            for path, file in commit.files.items():
                if path not in sizes:
                    found[commit.shard] = f"{path} is gone"
                elif sizes[path] != file["bytes"]:
                    found[commit.shard] = f"{path} has {sizes[path]:,} of {file['bytes']:,} bytes"
        return found

    def summary(
        self,
        shards: Iterable[str] | None = None,
        state: str = "finished",
        known: Iterable[Commit] = (),
    ) -> Summary:
        """Totals over the commits of `shards`; without them, over all, and what was given up."""
        commits = {commit.shard: commit for commit in self.commits(known)}
        wanted = commits.keys() | self.failed() if shards is None else set(shards)
        present = [commits[name] for name in sorted(wanted & set(commits))]
        return Summary.of(present, wanted - set(commits), state)

    def summarise(
        self,
        shards: Iterable[str] | None = None,
        state: str = "finished",
        known: Iterable[Commit] = (),
    ) -> Summary:
        """The same, also written to `summary.json`, as long as the run here is this one."""
        summary = replace(self.summary(shards, state, known), driver=self.driver.record())
        if not self.fingerprint or self.is_here():
            self._files.write("summary.json", asdict(summary))
        return summary

    def beat(self, summary: Summary) -> None:
        """Give a sign of life: a summary again, with the time."""
        if self.is_here():
            again = replace(summary, driver=self.driver.record())
            self._files.write("summary.json", asdict(again))

    def other_driver(self) -> Driver | None:
        """Who else is at work here, by its signs of life."""
        driver = self._last_driver()
        working = driver is not None and driver.alive and not driver.is_(self.driver)
        return driver if working else None

    def life(self) -> str:
        """Who drives the run here, and whether that process lives; empty where none does."""
        driver = self._last_driver()
        return driver.life() if driver is not None else ""

    def _last_driver(self) -> Driver | None:
        """Who works here, or died at it; nobody where the last run came to an end."""
        if not self._files.exists("summary.json"):
            return None
        try:
            saved = self._files.read("summary.json")
            return Driver.of(saved["driver"]) if saved["state"] == "running" else None
        except (ValueError, TypeError, KeyError):
            return None  # of before there were signs of life, or damaged, which `last_run` says

    def last_run(self) -> tuple[str, int]:
        """The state of the last run and the shards of its input, as `summary.json` says.

        Where it does not, as when somebody deleted it, the state is unknown, and 0 shards.

        Raises:
            ConfigError: there is no run here.
        """
        if not self._files.exists("summary.json"):
            if not self._files.exists("run.json") and not self.committed():
                raise ConfigError(f"{self.output}: there is no run (no summary.json)")
            return "unknown (no summary.json; the next run writes it)", 0
        try:
            saved = self._files.read("summary.json")
            return str(saved["state"]), int(saved["planned"])
        except (ValueError, TypeError, KeyError):
            return "unknown (summary.json is damaged; the next run replaces it)", 0

    def _clear(self) -> None:
        """Delete a run; commits before tables, so that nothing half-deleted counts as done.

        Without `categories.json`, a run that goes on knows that this was not done to its end.
        """
        for path in ("categories.json", "shards.parquet"):
            self._files.remove(path)
        for folder in ("failed", "commits", *TABLES):
            for name in storage.list_names(self._files.path(folder)):
                self._files.remove(f"{folder}/{name}")


def _shown(value: Any) -> str:
    """A value for a message: of a thousand names, the first will do."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in groups as one mapping, under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
