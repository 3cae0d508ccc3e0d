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
from urllib.request import Request, urlopen

from pipeline.demo.run import SHARDS

ROOT = Path(__file__).parents[2]
TOKEN = "of-these-tests"
PATIENCE = 400.0
"""Seconds that a job may take on a machine that does much else."""
PORTS = (
    "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port",
    "runtime-env-agent-port",
)  # fmt: skip
RANDOM = {"min-worker-port": "0", "max-worker-port": "0"}
"""What Ray then chooses for itself."""


class Head:
    """A running head, and the commands of its users.

    Attributes:
        address: of its jobs, as RAY_ADDRESS.
        environment: of who uses it.
        join: where nodes join it.
        files: its temporary folder.
    """

    def __init__(
        self, address: str, environment: Mapping[str, str], join: str, files: Path
    ) -> None:
        self.address = address
        self.environment = {**environment, "RAY_ADDRESS": address}
        self.join = join
        self.files = files

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

    def listed(self, what: str) -> list[dict[str, Any]]:
        """What `ray list` lists."""
        found = self.ask(f"v0/{what}?detail=true&limit=1000")["data"]["result"]["result"]
        return list(found)


@contextmanager
def job(head: Head, output: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """A job over the demo's shards, which is followed and may go on while the body runs.

    Args:
        head: that it is submitted to.
        output: of it.
        settings: more of `annotate.py`.
    """
    # Nodes of one machine share a folder: the first that is done with a working directory deletes
    # that of the others.
    installed = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
    command = ["ray", "job", "submit", "--runtime-env-json", installed, "--"]
    command += ["python", "-m", "jobs.annotate", "--input", str(SHARDS), "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--limit_samples", "4", "--engine.threads", "1", *settings],
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def running_head(
    environment: Mapping[str, str],
    *options: str,
    scaling: Callable[[str], Mapping[str, Any]] | None = None,
) -> Iterator[Head]:
    """A head while the body runs.

    Args:
        environment: more of it.
        options: more for `ray start`.
        scaling: makes the configuration of an autoscaler of the address where nodes join.
    """
    with _folder() as folder:
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
        join, dashboard, client = _free_ports(3)
        head = Head(f"http://127.0.0.1:{dashboard}", mine, f"127.0.0.1:{join}", folder / "ray")
        own = ["--head", f"--port={join}", f"--temp-dir={head.files}", "--disable-usage-stats"]
        own += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        if scaling:
            configuration = folder / "autoscaling.json"
            configuration.write_text(json.dumps(scaling(head.join)))
            own += [f"--autoscaling-config={configuration}"]
        with _started(mine, folder / "log", [*own, "--num-cpus=2", *options]) as process:

            def answers() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    return bool(_alive(head))  # its own node comes last
                except OSError:
                    return False

            until(answers, "the head answers")
            yield head


@contextmanager
def joined(head: Head, log: Path, *options: str) -> Iterator[None]:
    """A further node of a head, on this machine, while the body runs.

    Args:
        head: of the cluster.
        log: a file for what it says.
        options: more for `ray start`.
    """
    before = _alive(head)
    environment = {k: v for k, v in head.environment.items() if k != "RAY_ADDRESS"}
    with _started(environment, log, [f"--address={head.join}", *options]) as process:

        def is_there() -> bool:
            assert process.poll() is None, log.read_text()
            return _alive(head) > before

        until(is_there, "the node joins")
        yield


def _alive(head: Head) -> int:
    """Nodes of the cluster."""
    return sum(node["state"] == "ALIVE" for node in head.listed("nodes"))


@contextmanager
def _started(
    environment: Mapping[str, str], log: Path, options: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start` on free ports while the body runs."""
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True)) | RANDOM
    command = ["ray", "start", "--block", "--node-ip-address=127.0.0.1", *options]
    command += ["--object-store-memory=100000000"]
    with log.open("w") as said:
        process = subprocess.Popen(
            command + [f"--{name}={port}" for name, port in ports.items()],
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


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
