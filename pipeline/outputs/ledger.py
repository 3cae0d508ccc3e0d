"""What is done: the files of an output directory other than the tables themselves.

The commit of a shard is written last, after its tables. It alone says that the shard is done.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.config import fingerprint
from pipeline.errors import ConfigError
from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import StageClock
from pipeline.outputs import index, versions
from pipeline.outputs.books import damages
from pipeline.outputs.books.commits import INDEX, Commits
from pipeline.outputs.books.cost import Cost
from pipeline.outputs.books.failures import Failures
from pipeline.outputs.books.last_run import LastRun
from pipeline.outputs.books.ownership import Ownership, differences
from pipeline.outputs.heartbeat import Driver
from pipeline.outputs.index import CommitTable
from pipeline.outputs.records import Commit, Failure, Summary, file_record
from pipeline.storage.json_files import JsonFiles

TABLES = ("annotations", "images", "counts")
"""Folders with a file for every shard."""
CHECK_SECONDS = 1.0
"""For so long after it was looked up the run here is taken to be still the same."""


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
        self._owner = Ownership(self._files)
        self._commits = Commits(self._files)
        self._failures = Failures(self._files)
        self._last_run = LastRun(self._files)
        self.fingerprint = ""
        self.driver = Driver()
        self._engine: Mapping[str, Any] | None = None

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
        self._engine = config.get("engine", {})
        changes = self.changes(identity)
        if changes and not redo and (self.committed() or self.other_driver()):
            raise ConfigError(
                f"--output {self.output} holds results of another configuration "
                f"({'; '.join(changes)}); choose another output, or --on_mismatch redo"
            )
        if changes or not self.run():
            self._owner.write(identity, config)
        if changes:
            self._clear()
        if changes or not self._files.exists("categories.json"):
            self._files.write("categories.json", list(categories))

    def run(self) -> dict[str, Any]:
        """What `run.json` says: settings, fingerprint, versions; empty where there is no run."""
        return self._owner.read()

    def identity(self) -> dict[str, Any]:
        """The settings that made what is here; empty where there is no run."""
        return self._owner.identity()

    def is_here(self) -> bool:
        """Whether this process finds the run that was opened: its disk may be another one."""
        return self._owner.fingerprint() == self.fingerprint

    def check_owner(self, mine: str) -> None:
        """Make sure that the run here is still one's own; see `Ownership.check`."""
        self._owner.check(mine)

    def changes(self, identity: dict[str, Any]) -> list[str]:
        """In which settings the run that is here differs; empty where there is none."""
        before = self.identity()
        if before:
            return differences(before, identity)
        # Where `run.json` was lost, only the commits tell.
        first, now = self._commits.first(), fingerprint(identity)
        if first is None or first["fingerprint"] == now:
            return []
        return [f"fingerprint: {first['fingerprint']} there, {now} now, and no run.json"]

    def committed(self) -> set[str]:
        """Names of the shards that are done."""
        return self._commits.names()

    def commit(
        self, commit: Commit, tables: Mapping[str, bytes], clock: StageClock | None = None
    ) -> None:
        """Write the tables of a shard, then the record that it is done.

        A write for each of them, and one small request to see whose the output is.

        Args:
            commit: the record.
            tables: path below the output → complete file.
            clock: what it says goes into the record, with the time of the tables, as in `seconds`.

        Raises:
            TakenOver: the run that is here now has other settings.
        """
        self.check_owner(commit.fingerprint)
        checked = time.monotonic()
        with (clock or StageClock()).measure("write"):
            for path, data in tables.items():
                storage.write_bytes(self._files.path(path), data)
        if (took := time.monotonic() - checked) > CHECK_SECONDS:
            self.check_owner(commit.fingerprint)
        if clock is not None:
            seconds, times = round(commit.seconds + took, 3), clock.record()
            stages, processor = times["stages"], times["processor"]
            commit = replace(commit, seconds=seconds, stages=stages, processor=processor)
        self._commits.write(commit)

    def take_report(self, shard: str) -> str:
        """The record of a shard that was committed in this process, for the driver; once."""
        return self._commits.take_report(shard)

    def report(self, text: str) -> None:
        """Take down such a record, so that it need not be read; nothing where it is empty."""
        if text:
            self._commits.report(text)

    def fail(self, shard: Shard, reason: str, transient: bool = False) -> None:
        """Record that a shard was given up, and why.

        Where that cannot be written for a reason that does not pass, it is said, and this process
        knows it all the same: one record is no reason to leave the other shards.

        Args:
            shard: that was given up.
            reason: in one line.
            transient: nothing may be wrong with the shard: the next run is to try it again.

        Raises:
            TakenOver: the run that is here now has other settings.
            OSError: it cannot be written now.
        """
        self.check_owner(self.fingerprint)
        self._failures.write(shard, Failure(reason, transient), self.fingerprint)

    def forgive(self, committed: Collection[str]) -> None:
        """Take away what says that shards were given up which have been committed since.

        That is the driver's: a worker would have to ask for every shard whether there is any.
        """
        self._failures.forgive(committed)

    def forget(self, shards: Iterable[str]) -> None:
        """Take back shards with all that was written for them, so that they are done again."""
        for shard in shards:
            self._commits.remove(shard)
            self._failures.remove(shard)
            for folder in TABLES:
                self._files.remove(f"{folder}/{shard}.parquet")

    def given_up(self) -> dict[str, Failure]:
        """Name of every shard that this run has given up, and not committed since → why."""
        names = self._failures.names()
        return self._failures.read(names - self.committed(), self._own()) if names else {}

    def failed(self) -> set[str]:
        """Names of these shards."""
        return set(self.given_up())

    def failures(self) -> dict[str, str]:
        """The same with the reason for people."""
        return {name: str(failure) for name, failure in self.given_up().items()}

    def left(self) -> list[str]:
        """Names of the shards that the last run had not committed when it ended."""
        return self._last_run.missing()

    def missing(self, commits: Iterable[Commit]) -> dict[str, str]:
        """Name of every shard that the run should have committed and has not → the reason.

        Args:
            commits: all that there are.
        """
        reasons = self.failures()
        planned = self._last_run.missing()
        absent = {*planned, *reasons, *self.committed()} - {commit.shard for commit in commits}
        return {name: reasons.get(name, "not done yet") for name in sorted(absent)}

    def categories(self) -> list[dict[str, Any]]:
        """Id and name of every category; while a run works, of those of the class file."""
        categories: list[dict[str, Any]] = self._files.read("categories.json")
        return categories

    def survey(self) -> tuple[CommitTable, set[str]]:
        """Every commit of the run, and the names of shards that other settings have committed.

        A request for every thousand shards, and two for each that was committed since the index
        was written and not reported to this process.
        """
        return self._commits.survey(self._own())

    def table(self) -> CommitTable:
        """Every commit of the run.

        What a run with other settings has left here, or still leaves, is not believed.
        """
        return self.survey()[0]

    def commits(self) -> list[Commit]:
        """The same as objects, by shard name."""
        return list(self.table())

    def _own(self) -> str | None:
        """The fingerprint of the run here; None where `run.json` was lost."""
        return self.fingerprint or self.run().get("fingerprint")

    def write_table(self) -> CommitTable:
        """Bring `shards.parquet` up to date, as long as the run here is this one, and return it."""
        if self.fingerprint and not self.is_here():
            return self.table()
        return self._commits.save(self._own())

    def write_index(self, commits: Iterable[Commit]) -> None:
        """Bring `shards.parquet` up to date, and write `categories.json` anew.

        Args:
            commits: all that are here.

        Raises:
            ConfigError: two categories have one id.
        """
        self.write_table()
        self.write_categories(commits)

    def write_categories(self, commits: Iterable[Commit]) -> None:
        """Write `categories.json` alone; see `write_index`.

        Raises:
            TakenOver: the run that is here now has other settings.
        """
        if self.fingerprint:
            self.check_owner(self.fingerprint)
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

    def damages(self, commits: CommitTable) -> dict[str, str]:
        """Name of every shard whose tables are not those that were committed → what is wrong.

        One listing for each folder: sizes are compared, contents are not.
        """
        return damages.by_size(self._files, commits, TABLES)

    def damage(self, commit: Commit) -> str:
        """What is wrong with the tables of a shard by all that they hold; empty if nothing.

        Raises:
            OSError: one of them cannot be read, which says nothing about it.
        """
        return damages.by_contents(self._files, commit)

    def summary(
        self,
        shards: Iterable[str] | None = None,
        state: str = "finished",
        commits: CommitTable | None = None,
    ) -> Summary:
        """Totals over the commits of some shards.

        Args:
            shards: their names; without them all that are committed or given up.
            state: see `Summary`.
            commits: all that there are, where they are known.
        """
        table = self.table() if commits is None else commits
        names = set(table.names)
        wanted = names | self.failed() if shards is None else set(shards)
        totals = Summary.of(table.without(names - wanted), wanted - names, state)
        return totals.with_busy(self.engine()) if totals.stages else totals

    def engine(self) -> Mapping[str, Any]:
        """How the work of the run here is done: the settings of its group --engine."""
        if self._engine is None:
            self._engine = self.run().get("config", {}).get("engine", {})
        return self._engine

    def cost(self) -> Cost:
        """What the runs here have taken so far, as far as that was written down."""
        return self._last_run.cost()

    def summarise(
        self,
        shards: Iterable[str] | None = None,
        state: str = "finished",
        commits: CommitTable | None = None,
        cost: Cost | None = None,
    ) -> Summary:
        """The same, also written to `summary.json`, as long as the run here is this one."""
        totals = self.summary(shards, state, commits)
        spent = (cost or Cost()).record()
        summary = replace(totals, driver=self.driver.record(), cost=spent)
        if not self.fingerprint or self.is_here():
            self._last_run.write(summary)
        return summary

    def beat(self, summary: Summary, cost: Cost | None = None) -> None:
        """Give a sign of life: a summary again, with the time, and what has been spent by now."""
        if self.is_here():
            spent = cost.record() if cost else summary.cost
            self._last_run.write(replace(summary, driver=self.driver.record(), cost=spent))

    def other_driver(self) -> Driver | None:
        """Who else is at work here, by its signs of life."""
        driver = self._last_run.driver()
        working = driver is not None and driver.alive and not driver.is_(self.driver)
        return driver if working else None

    def life(self) -> str:
        """Who drives the run here, and whether that process lives; empty where none does."""
        return driver.life() if (driver := self._last_run.driver()) else ""

    def last_run(self) -> tuple[str, int]:
        """The state of the last run and the shards of its input, as `summary.json` says.

        Where it does not, as when somebody deleted it, the state is unknown, and 0 shards.

        Raises:
            ConfigError: there is no run here.
        """
        said = self._last_run.read()
        if said is None and not self._files.exists("run.json") and not self.committed():
            raise ConfigError(f"{self.output}: there is no run (no summary.json)")
        return said or ("unknown (no summary.json; the next run writes it)", 0)

    def _clear(self) -> None:
        """Delete a run; commits before tables, so that nothing half-deleted counts as done.

        Without `categories.json`, a run that goes on knows that this was not done to its end.
        """
        for path in ("categories.json", INDEX):
            self._files.remove(path)
        for folder in ("failed", "commits", *TABLES):
            self._files.clear(folder)
