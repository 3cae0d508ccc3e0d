"""Drivers of runs, as seen from outside: started, watched, signalled, waited for with a limit."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.stand_ins import Trouble

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.005
STARTING = 120.0
"""Seconds that the imports may take."""
GLUED = re.compile(r"(?m)^(.*\(raylet\).* .+?)(?=(?:died|failed|given up|lost|left out): )")
"""Ray writes a message and the end of its line one after the other, and we may come between."""


class Hangs(AssertionError):
    """Something did not happen within its time."""


class Zygote:
    """The process that forks the drivers; see `tests.chaos.zygote`."""

    def __init__(self, folder: Path) -> None:
        """Start it.

        Args:
            folder: where Ray is to keep its files: elsewhere, the runs of others would find it.
        """
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(folder),
            "RAY_ADDRESS": "local",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # who stops the suite does not mean those who clear up after it
        )
        assert self._process.stdout and self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(STARTING)
        self._process.stdout.close()

    def drive(
        self,
        work: Path,
        arguments: Sequence[str],
        trouble: Trouble,
        environment: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> Drive:
        """Start the command.

        Args:
            work: folder of the case; what the driver leaves comes into a new one in it.
            arguments: of the command.
            trouble: that its workers have.
            environment: what it has besides that of this process.
            patience: seconds that a web server may be silent, in the driver's process.
        """
        names = (f"drive-{number}" for number in itertools.count())
        folder = next(work / name for name in names if not (work / name).exists())
        folder.mkdir()
        job = {
            "folder": str(folder),
            "work": str(work),
            "arguments": list(arguments),
            "trouble": asdict(trouble),
            "environment": dict(environment or {}),
            "patience": patience,
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        until(lambda: (folder / "pid").exists(), 30, "a driver is forked")
        return Drive(folder)


class Drive:
    """A command at work, or one that has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pid = int((folder / "pid").read_text())

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it works."""
        path = self._folder / "code"
        return int(path.read_text()) if path.exists() else None

    @property
    def log(self) -> str:
        """All that it has said."""
        path = self._folder / "log"
        return GLUED.sub(r"\1\n", path.read_text(errors="replace")) if path.exists() else ""

    def says(self, pattern: str, seconds: float) -> str:
        """Wait for a line with this in it."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [line for line in self.log.splitlines() if re.search(pattern, line)]
            return bool(found) or self.code is not None

        until(look, seconds, f"the driver says {pattern!r}")
        assert found, f"it ended with {self.code} and never said {pattern!r}:\n{self.log}"
        return found[0]

    def signal(self, number: int) -> None:
        """Send a signal to the driver alone."""
        assert self.code is None, f"over, with {self.code}, before it was hit:\n{self.log}"
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        try:
            until(lambda: self.code is not None, seconds, "the driver ends")
        except Hangs as error:
            raise Hangs(f"{error}:\n{self.log[-4000:]}") from error
        assert self.code is not None
        return self.code

    def clear_away(self) -> None:
        """End the driver and all that it has started, if it still works."""
        if self.code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(30)


def until(happens: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something.

    Raises:
        Hangs: it did not happen within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            raise Hangs(f"{seconds:.0f} s, and not yet: {what}")
        time.sleep(LOOK_SECONDS)
