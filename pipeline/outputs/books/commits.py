"""What is committed: `commits/<shard>.json` is the truth, `shards.parquet` spares reading it.

A row of the table is believed only where the listing of `commits/` shows the very file that the row
was made of, by its size and time. All others are read, two requests each.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.errors import one_line
from pipeline.log import Event, say
from pipeline.outputs.index import STAMP, CommitTable
from pipeline.outputs.records import Commit
from pipeline.storage import Found
from pipeline.storage.json_files import JsonFiles, settled

FOLDER = "commits"
INDEX = "shards.parquet"
NOTHING = zlib.compress(b"")


class Commits:
    """The commits of an output, and what this process knows of them.

    Several threads may use it at once. In another process it begins without what it knows.
    """

    def __init__(self, files: JsonFiles) -> None:
        self._files = files
        self._lock = threading.RLock()
        self._known: CommitTable | None = None
        self._young: set[str] = set()
        """Of what is known, what may have been replaced without a trace when it was read."""
        self._reports: dict[str, bytes] = {}  # each use is one step, so that no thread has to wait
        self._saved = False

    def __reduce__(self) -> tuple[type[Commits], tuple[JsonFiles]]:
        return Commits, (self._files,)

    def names(self) -> set[str]:
        """Of the shards that are done, whoever did them."""
        return self._files.names(FOLDER)

    def write(self, commit: Commit) -> None:
        """Say that a shard is done."""
        text = self._files.write(f"{FOLDER}/{commit.shard}.json", asdict(commit))
        self._keep(commit.shard, text)

    def take_report(self, shard: str) -> str:
        """What `write` has written of a shard in this process, once; empty if nothing."""
        return zlib.decompress(self._reports.pop(shard, NOTHING)).decode()

    def report(self, text: str) -> None:
        """Take down what another process has written of a shard, which need not be read then."""
        self._keep(json.loads(text)["shard"], text)

    def _keep(self, shard: str, text: str) -> None:
        # 10^5 of them may wait for the next survey: less than half the memory, for 0.1 ms each.
        self._reports[shard] = zlib.compress(text.encode(), 1)

    def remove(self, shard: str) -> None:
        """Take a shard back."""
        self._files.remove(f"{FOLDER}/{shard}.json")

    def first(self) -> dict[str, Any] | None:
        """Any of the records, as it is; None where there is none."""
        names = sorted(self.names())[:1]
        return next((content for _, content in self._files.records(FOLDER, names)), None)

    def survey(self, own: str | None) -> tuple[CommitTable, set[str]]:
        """All commits that there are.

        Args:
            own: fingerprint of the run; None to believe all.

        Returns:
            Those of the run, and the names of shards that have one of other settings.

        Raises:
            ConfigError: a commit is damaged.
        """
        with self._lock:
            seen, there = time.time_ns(), self._files.listing(FOLDER)
            if self._known is None:
                # Where nothing is done, there is nothing to read either.
                found = self._index() if there else None
                self._known, self._saved = found or CommitTable.of([]), found is not None
            known = self._known
            doubted = self._doubted(known, own, there, seen)
            unknown = set(there).difference(known.names) | (doubted & there.keys())
            foreign, young = set[str](), set[str]()

            def of_the_run() -> Iterator[Commit]:
                for name, content in self._read(unknown, there):
                    if own not in (content.get("fingerprint"), None):
                        foreign.add(name)
                        continue
                    if not settled(there[name], seen):
                        young.add(name)
                    yield self._commit(name, content)

            self._known = known.replaced(doubted, of_the_run(), there)
            if self._known is not known:
                self._saved = False
            self._young = (self._young - unknown) | young
            return self._known, foreign

    def save(self, own: str | None) -> CommitTable:
        """Bring `shards.parquet` up to date where it is not, and return what is in it."""
        with self._lock:
            table, _ = self.survey(own)
            if not self._saved:
                data = table.to_bytes(unstamped=self._young)
                storage.write_bytes(self._files.path(INDEX), data)
                self._saved = True
            return table

    def _doubted(
        self, known: CommitTable, own: str | None, there: dict[str, Found], seen: int
    ) -> set[str]:
        """Of what is known, by this process or from its last run, what may not be so any more."""
        return {
            shard
            for shard, made, *stamp in known.rows("shard", "fingerprint", *STAMP)
            if there.get(shard) != tuple(stamp)
            or own not in (made, None)
            or (shard in self._young and settled(there[shard], seen))
        }

    def _index(self) -> CommitTable | None:
        try:
            data = storage.read_bytes(self._files.path(INDEX))
        except FileNotFoundError:
            return None
        try:
            return CommitTable.from_bytes(data)
        except (OSError, pa.ArrowException) as error:
            why = one_line(error)
            line = f"{INDEX} cannot be read ({why}): every commit is read instead"
            say(Event("no_index", line, "warning", reason=why))
            return None

    def _read(
        self, names: Iterable[str], there: dict[str, Found]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Records as they were reported, if the files still are of that size, or read."""
        unreported = []
        for name in sorted(names):  # rows in order need no copy
            text = self.take_report(name)
            if text and len(text.encode()) == there[name].size:
                yield name, json.loads(text)
            else:
                unreported.append(name)
        yield from self._files.records(FOLDER, unreported)

    def _commit(self, name: str, content: dict[str, Any]) -> Commit:
        try:
            return Commit(**content)
        except TypeError as error:
            raise self._files.damaged(f"{FOLDER}/{name}.json", one_line(error)) from error
