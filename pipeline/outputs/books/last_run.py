"""`summary.json`: how far the last run came, and who drives it."""

from __future__ import annotations

from dataclasses import asdict

from pipeline.errors import ConfigError, one_line
from pipeline.log import Event, say
from pipeline.outputs.books.cost import Cost
from pipeline.outputs.heartbeat import Driver
from pipeline.outputs.records import Summary
from pipeline.storage.json_files import JsonFiles

FILE = "summary.json"
DAMAGED = (ValueError, TypeError, KeyError)


class LastRun:
    """What the last run has left, or the present one leaves now and then."""

    def __init__(self, files: JsonFiles) -> None:
        self._files = files

    def write(self, summary: Summary) -> None:
        """Replace it."""
        self._files.write(FILE, asdict(summary))

    def read(self) -> tuple[str, int] | None:
        """The state, and how many shards the input had; None where there is no such file."""
        try:
            saved = self._files.find(FILE)
            return None if saved is None else (str(saved["state"]), int(saved["planned"]))
        except DAMAGED:
            return f"unknown ({FILE} is damaged; the next run replaces it)", 0

    def missing(self) -> list[str]:
        """Names of the shards that were not committed in the end; empty without a file.

        Raises:
            ConfigError: it is damaged.
        """
        saved = self._files.find(FILE)
        try:
            return [] if saved is None else [str(name) for name in saved["missing"]]
        except DAMAGED as error:
            raise self._files.damaged(FILE, one_line(error, kind=True)) from error

    def cost(self) -> Cost:
        """What the runs here have taken so far, as far as that was written down.

        Where that is damaged, a line says that it is lost.
        """
        try:
            saved = self._files.find(FILE)
            return Cost.of({} if saved is None else saved.get("cost", {}))
        except (*DAMAGED, ConfigError, AttributeError) as error:
            why = one_line(error, kind=True)
            line = f"{FILE} is damaged ({why}): what was spent here before is not in the cost"
            say(Event("cost_lost", line, "warning", reason=why))
            return Cost()

    def driver(self) -> Driver | None:
        """Who works here, or died at it; nobody where the last run came to an end."""
        try:
            saved = self._files.find(FILE)
            if saved is None or saved["state"] != "running":
                return None
            return Driver.of(saved["driver"])
        except DAMAGED:
            return None  # of before there were signs of life, or damaged, which `read` says
