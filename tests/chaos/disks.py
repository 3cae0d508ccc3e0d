"""Disks that are full or read-only for a while: real ones, small file systems in memory."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.cases import LIMIT, Case
from tests.chaos.drives import Drive
from tests.chaos.kinds import Skipped, kind
from tests.chaos.stand_ins import Trouble

WAITS = "not available: "


@contextmanager
def disk(case: Case, size: str) -> Iterator[Path]:
    """The output of the case on a disk of its own."""
    place = case.work / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", str(place)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        raise Skipped(f"no file system can be mounted here: {mounted.stderr.strip()}")
    case.output = place / "out"
    case.place = str(case.output)
    try:
        yield place
    finally:
        for drive in case.drives:
            drive.clear_away()
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, option: str) -> None:
    """Change the disk while it is used."""
    deadline = time.monotonic() + 20
    while subprocess.run(
        ["mount", "-o", f"remount,{option}", str(place)], capture_output=True
    ).returncode:
        assert time.monotonic() < deadline, "always busy: a file is being written"
        time.sleep(0.01)


def fill(place: Path) -> Path:
    """Take all the room that is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass  # it is full now
    return ballast


def waits_and_ends(case: Case, drive: Drive) -> None:
    """What was in the way is gone: the run comes to its end by itself."""
    assert drive.wait(LIMIT) == 0 and "given up: " not in drive.log, drive.log
    case.must_say(WAITS)
    case.check()


@kind("disk full, then room is made", "6")
def full(case: Case) -> None:
    with disk(case, "4m") as place:
        drive = case.start(trouble=Trouble(seconds=0.2))
        case.wait_for_the_middle(drive)
        ballast = fill(place)
        case.hit()
        drive.says(f"{WAITS}.*No space left on device", 30)
        time.sleep(case.draw.uniform(0, 3))
        ballast.unlink()
        waits_and_ends(case, drive)


@kind("disk too small, then enlarged", "6")
def small(case: Case) -> None:
    with disk(case, "100k") as place:
        drive = case.start(trouble=Trouble(seconds=0.05))
        drive.says(f"{WAITS}.*No space left on device", 30)
        case.hit()
        time.sleep(case.draw.uniform(0, 3))
        remount(place, "size=8m")
        waits_and_ends(case, drive)


@kind("output read-only for a while", "6")
def read_only(case: Case) -> None:
    with disk(case, "8m") as place:
        drive = case.start(trouble=Trouble(seconds=0.2))
        case.wait_for_the_middle(drive)
        remount(place, "ro")
        case.hit()
        drive.says(f"{WAITS}.*Read-only file system", 30)
        time.sleep(case.draw.uniform(0, 3))
        remount(place, "rw")
        waits_and_ends(case, drive)


@kind("disk full for longer than the run waits, then enlarged", "6")
def full_for_long(case: Case) -> None:
    with disk(case, "100k") as place:
        case.settings += ["--engine.patience_seconds", "3"]
        drive = case.start(trouble=Trouble(seconds=0.05))
        drive.says(f"{WAITS}.*No space left on device", 30)
        case.hit()
        assert drive.wait(LIMIT) == 3, drive.log
        case.must_say("No space left on device.*the same command goes on")
        remount(place, "size=8m")
        case.goes_on()
        case.check()
