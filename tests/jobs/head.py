"""A Ray head for jobs: of its own, with a token, and ended without touching any other Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

TOKEN = "of-these-tests"
PATIENCE = 400.0
"""Seconds that a job may take on a machine that does much else."""
PORTS = {
    "port": "", "dashboard-port": "", "dashboard-agent-listen-port": "",
    "dashboard-agent-grpc-port": "", "metrics-export-port": "", "ray-client-server-port": "",
    "runtime-env-agent-port": "", "min-worker-port": "0", "max-worker-port": "0",
}  # fmt: skip
"""Of `ray start`; those that are empty here are any that are free."""


class Head:
    """A running head, and the commands of its users.

    Attributes:
        address: of its jobs, as RAY_ADDRESS.
        environment: of who uses it.
    """

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.address = address
        self.environment = {**environment, "RAY_ADDRESS": address}

    def run(self, command: Sequence[str], place: Path) -> str:
        """What a command of a user says, who is in a folder; it has to end well."""
        ended = subprocess.run(
            command,
            cwd=place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def ask(self, path: str, method: str = "GET") -> Any:
        """What the REST interface of jobs answers."""
        request = Request(
            f"{self.address}/api/{path}", None, {"Authorization": f"Bearer {TOKEN}"}, method=method
        )
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def running_head(environment: Mapping[str, str], *options: str) -> Iterator[Head]:
    """A head while the body runs.

    Args:
        environment: more of it.
        options: more for `ray start`.
    """
    with ExitStack() as exit_, _folder() as folder:
        # Who has activated an environment has these; a test may have the interpreter alone.
        for name, command in {"python": "", "ray": " -m ray.scripts.scripts"}.items():
            script = folder / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{command} "$@"\n')
            script.chmod(0o755)
        mine = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        mine |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        mine |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        mine |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", **environment}
        ports = PORTS | dict(zip((p for p in PORTS if not PORTS[p]), _free_ports(7), strict=True))
        log = exit_.enter_context((folder / "log").open("w+"))
        process = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2"]
            + [f"--temp-dir={folder / 'ray'}", "--object-store-memory=100000000", *options]
            + [f"--{name}={port}" for name, port in ports.items()],
            env=mine,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        exit_.callback(_end, process)
        head = Head(f"http://127.0.0.1:{ports['dashboard-port']}", mine)

        def answers() -> bool:
            if process.poll() is not None:
                raise AssertionError((folder / "log").read_text())
            try:
                return bool(head.ask("version"))
            except URLError:
                return False

        until(answers, "the head answers")
        yield head


def until(true: Callable[[], object], what: str) -> None:
    """Wait for something.

    Raises:
        AssertionError: it does not come.
    """
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.2)


@contextmanager
def _folder() -> Iterator[Path]:
    """With a short name, for sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="jobs-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[str]:
    with ExitStack() as exit_:
        sockets = [exit_.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a head, and what it has started: they are of its session."""
    process.terminate()
    try:
        process.wait(60)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
