"""A run that is killed in the middle, and the same command again."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.annotate import main
from pipeline.demo.run import SHARDS

ROOT = Path(__file__).parents[2]
PARTS, SAMPLES = 16, 6
PATIENCE = 240.0  # seconds


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's scenes in many small shards, so that a kill falls between commits."""
    folder = tmp_path_factory.mktemp("parts")
    members = [m for path in sorted(SHARDS.glob("*.tar")) for m in _members(path)]
    size = 3 * SAMPLES  # an image has three members
    for part in range(PARTS):
        with tarfile.open(folder / f"part-{part:03d}.tar", "w") as archive:
            for info, data in members[part * size : (part + 1) * size]:
                archive.addfile(info, io.BytesIO(data))
    return folder


@pytest.fixture(scope="module")
def undisturbed(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(_arguments(parts, output, "local")) == 0
    return output


# `make chaos` kills drivers on Ray, too.
@pytest.mark.parametrize(
    "executor", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])]
)
def test_killed_run_continues_to_the_same_bytes(
    parts: Path, undisturbed: Path, tmp_path: Path, executor: str, request: pytest.FixtureRequest
) -> None:
    output = tmp_path / "disturbed"
    process = _start(parts, output, executor)
    _wait_for_commits(output, 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    _wait_until_quiet(output)
    kept = _commits(output)
    assert 2 <= len(kept) < PARTS

    if executor == "ray":  # that of the first run is dead
        request.getfixturevalue("shared_ray")
    assert main(_arguments(parts, output, executor)) == 0
    after = _commits(output)
    assert {name: after[name] for name in kept} == kept  # seconds included: not done again
    assert len(after) == PARTS
    for folder in ("annotations", "images"):
        assert _bytes(output / folder) == _bytes(undisturbed / folder)
    keys = pq.read_table(output / "images")["key"].to_pylist()
    assert len(keys) == len(set(keys)) == PARTS * SAMPLES


def _arguments(parts: Path, output: Path, executor: str) -> list[str]:
    places = ["--input", str(parts), "--output", str(output)]
    return [*places, "--engine.executor", executor, "--engine.threads", "1"]


def _start(parts: Path, output: Path, executor: str) -> subprocess.Popen[bytes]:
    """The command in a session of its own; on Ray, with a Ray of its own.

    So one signal reaches the driver and what it has started.
    """
    return subprocess.Popen(
        [sys.executable, "jobs/annotate.py", *_arguments(parts, output, executor)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


def _wait_for_commits(output: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(_commits(output)) < count:
        assert process.poll() is None, "the run was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _wait_until_quiet(output: Path) -> None:
    """Ray's actors notice the end of their driver within a second or two."""
    before = -1
    while before != (now := len(_commits(output))):
        before = now
        time.sleep(3)


def _commits(output: Path) -> dict[str, object]:
    return {
        path.name: json.loads(path.read_text()) for path in (output / "commits").glob("[!.]*.json")
    }


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def _members(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive]
