"""Locks among processes: where they lie, what is said, and when waiting ends."""

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.models import locks

HOLD = """
import sys
from pipeline.models import locks
with locks.alone("weights", "fetching"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def own_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder() -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the lock, until it is told to go on."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


def test_locks_lie_on_the_machine_s_own_disk_and_are_the_user_s(own_disk: Path) -> None:
    with locks.alone("weights", "fetching"):
        pass
    (folder,) = own_disk.iterdir()
    assert folder.name == f"legrad-annotate-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] in ([], ["weights.lock"])


def test_who_waits_says_so_once_and_goes_on(
    holder: "subprocess.Popen[str]", own_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def let_go() -> None:
        time.sleep(0.5)
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()

    thread = threading.Thread(target=let_go)
    began = time.monotonic()
    thread.start()
    with locks.alone("weights", "fetching w.pt"):
        assert time.monotonic() - began > 0.4
    thread.join()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Waiting for another process that is fetching w.pt (")
    assert line.endswith("/weights.lock)")
    with locks.alone("weights", "fetching w.pt"):
        pass
    assert capsys.readouterr().out == ""


def test_waiting_has_a_limit(
    holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LIMIT", 0.3)
    with (
        pytest.raises(ModelError, match=r"another process has held .*weights\.lock for"),
        locks.alone("weights", "fetching w.pt"),
    ):
        pass
    with locks.alone("others", "fetching other weights"):
        pass


def test_a_process_that_is_killed_lets_go(holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    with locks.alone("weights", "fetching"):
        pass


def test_what_fails_inside_is_raised_and_the_lock_let_go() -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"), locks.alone("weights", "fetching"):
            raise OSError("disk full")


def test_somebody_else_s_folder_is_not_used(own_disk: Path) -> None:
    (own_disk / "elsewhere").mkdir()
    (own_disk / f"legrad-annotate-{os.getuid()}").symlink_to(own_disk / "elsewhere")
    with (
        pytest.raises(ModelError, match="is somebody else's; set TMPDIR"),
        locks.alone("weights", "fetching"),
    ):
        pass
