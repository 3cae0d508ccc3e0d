"""A case: a run of its own, something that happens to it, and what has to be true afterwards."""

from __future__ import annotations

import functools
import io
import json
import random
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from tests.chaos.cluster import Nodes

from tests.chaos.drives import Drive, Zygote, until
from tests.chaos.stand_ins import CLOSED, Trouble

SHARDS, IMAGES = 10, 3
TABLES = ("annotations", "images")
LIMIT = 150.0
"""Seconds after which whatever has not ended hangs."""


def shards(names: Sequence[str], images: int = IMAGES, first: int = 0) -> dict[str, bytes]:
    """Tars of tiny images, each with a key that no other has; they are counted from `first`."""
    labels = json.dumps({"labels": ["dog"]}).encode()
    return {
        name: archive(
            member
            for i in range(first, first + images)
            for member in ((f"{name}-{i}.png", _picture()), (f"{name}-{i}.json", labels))
        )
        for name in names
    }


def archive(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of some files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as writer:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            writer.addfile(member, io.BytesIO(data))
    return written.getvalue()


@functools.cache
def _picture() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (24, 18), (200, 90, 30)).save(encoded, "PNG")
    return encoded.getvalue()


def names(count: int = SHARDS) -> list[str]:
    """What the shards are called."""
    return [f"s{number:03}" for number in range(count)]


def stem(name: str) -> str:
    """The name of a shard's tar, of the path or the name of what is written for it."""
    return name.rpartition("/")[2].partition("-")[0]


def tables(output: Path) -> dict[str, bytes]:
    """Path → bytes of what has to be the same in every run."""
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in TABLES
        for path in sorted((output / folder).glob("[!.]*"))
    }


class Bench:
    """What the cases share: who forks drivers, input, and the results of undisturbed runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zygote = Zygote(folder)
        self._expected: dict[tuple[int, tuple[str, ...]], dict[str, bytes]] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        if "nodes" in vars(self):
            self.nodes.close()
        self.zygote.close()

    @functools.cached_property
    def nodes(self) -> Nodes:
        """The Ray cluster of all cases that need not destroy it."""
        from tests.chaos.cluster import Nodes  # takes seconds, which only these cases should need

        return Nodes(self.zygote.environment)

    def make_input(self, folder: Path, count: int = SHARDS) -> Path:
        """A folder of shards; where it has some of them, they stay what they are."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in shards(names(count)).items():
            (folder / f"{name}.tar").write_bytes(data)
        return folder

    def expected(self, count: int, settings: Sequence[str] = ()) -> dict[str, bytes]:
        """The tables of a run that nothing happened to."""
        key = (count, tuple(settings))
        if key not in self._expected:
            work = self.folder / f"undisturbed-{len(self._expected)}"
            case = Case("undisturbed", random.Random(0), work, self, count=count)
            case.settings = list(settings)
            case.trouble = Trouble(seconds=0)
            code = case.start().wait(LIMIT)
            found = tables(case.output)
            assert (code, len(found)) == (0, len(TABLES) * count), case.log
            self._expected[key] = found
        return self._expected[key]


@dataclass
class Case:
    """One run and its fault.

    Attributes:
        name: of the kind.
        draw: random numbers of this case.
        work: a folder for it alone.
        bench: what it shares with others.
        count: shards of the run.
        executor: `local` or `ray`.
        settings: further arguments of the command.
        trouble: that its workers have.
        environment: of its drivers.
        patience: seconds that web servers may be silent.
        seen: lines that people must see, and have seen.

    `source` and `root` are what the command is given as its input, `place` as its output; after
    `fetch`, that lies in the folder `output`.
    """

    name: str
    draw: random.Random
    work: Path
    bench: Bench
    count: int = SHARDS
    executor: str = "local"
    settings: list[str] = field(default_factory=list)
    trouble: Trouble = field(default_factory=Trouble)
    environment: dict[str, str] = field(default_factory=dict)
    patience: float | None = None
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.input = self.bench.make_input(self.work / "in", self.count)
        self.source = str(self.input)
        self.root = str(self.input)
        self.output = self.work / "out"
        self.place = str(self.output)
        self.fetch: Callable[[], None] = lambda: None
        self.drives: list[Drive] = []
        self._hit_at: float | None = None
        self._over_at: float | None = None

    @property
    def log(self) -> str:
        """What all drivers have said."""
        return "".join(drive.log for drive in self.drives)

    @property
    def recovery(self) -> float | None:
        """Seconds from the fault until everything was well again."""
        if self._hit_at is None or self._over_at is None:
            return None
        return self._over_at - self._hit_at

    def start(self, *more: str, trouble: Trouble | None = None) -> Drive:
        """Start a driver with the settings of the case, and `more`."""
        arguments = [
            *("--input", self.source, "--input_root", self.root, "--output", self.place),
            *("--engine.executor", self.executor, "--engine.threads", "1"),
            *("--engine.log_seconds", "1", *self.settings, *more),
        ]
        drive = self.bench.zygote.drive(
            self.work, arguments, trouble or self.trouble, self.environment, self.patience
        )
        self.drives.append(drive)
        return drive

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have no shard begun while the body runs, so that the run does not end meanwhile."""
        (self.work / CLOSED).touch()
        try:
            yield
        finally:
            (self.work / CLOSED).unlink()

    def hit(self) -> None:
        """The fault happens now."""
        self._hit_at = self._hit_at or time.monotonic()

    def commits(self) -> set[str]:
        """Names of shards that are committed."""
        return {path.stem for path in (self.output / "commits").glob("[!.]*.json")}

    def wait_for(self, commits: int, drive: Drive, seconds: float = LIMIT) -> None:
        """Wait until so many shards are committed."""
        until(
            lambda: len(self.commits()) >= commits or drive.code is not None,
            seconds,
            f"{commits} commits",
        )

    def wait_for_the_middle(self, drive: Drive) -> None:
        """Wait for a random moment while the run works."""
        self.wait_for(self.draw.randrange(1, self.count // 2), drive)
        time.sleep(self.draw.uniform(0, 2 * self.trouble.seconds))
        assert drive.code is None, f"over before it was hit, with {drive.code}:\n{drive.log}"

    def workers(self, kind: str = "loaded") -> dict[int, str]:
        """Process and node of every worker that lives and was ever `loading`, `busy`, `done`, …"""
        paths = [path for path in (self.work / kind).glob("*") if Path("/proc", path.name).exists()]
        return {int(path.name): path.read_text() for path in paths}

    def wait_for_loading(self, drive: Drive) -> None:
        """Wait until a worker has begun to load its model."""
        until(lambda: self.workers("loading") or drive.code is not None, LIMIT, "a worker loads")
        assert drive.code is None, drive.log

    def wait_until_quiet(self) -> None:
        """Wait until what a dead driver has left behind commits nothing more."""
        before, since = self.commits(), time.monotonic()
        deadline = since + LIMIT
        while time.monotonic() - since < 2.0:
            assert time.monotonic() < deadline, "workers of a dead driver go on and on"
            time.sleep(0.1)
            if (now := self.commits()) != before:
                before, since = now, time.monotonic()

    def must_say(self, pattern: str, drive: Drive | None = None) -> str:
        """Assert that people have seen a line."""
        log = drive.log if drive else self.log
        lines = log.splitlines()
        line = next((line for line in lines if re.search(pattern, line)), None)
        ours = "\n".join(line for line in lines if "(raylet)" not in line)
        assert line is not None, f"nobody has seen {pattern!r}:\n{ours[-6000:]}"
        self.seen.append(line.strip()[:300])
        return line

    def goes_on(self, *more: str, trouble: Trouble | None = None) -> Drive:
        """The same command again, to its end."""
        drive = self.start(*more, trouble=trouble or Trouble(seconds=0.02))
        code = drive.wait(LIMIT)
        assert code == 0, f"the same command again ends with {code}:\n{drive.log[-6000:]}"
        return drive

    def status(self) -> str:
        """What `--status` says."""
        drive = self.bench.zygote.drive(
            self.work, ["--status", self.place], self.trouble, self.environment
        )
        assert drive.wait(LIMIT) == 0, drive.log
        return drive.log

    def check(
        self, given_up: Collection[str] = (), expected: Mapping[str, bytes] | None = None
    ) -> None:
        """Assert that all is as if nothing had happened.

        Args:
            given_up: names of the shards that are too much for anybody, without their digests.
            expected: the tables of an undisturbed run, where the input is not that of all.
        """
        self._over_at = self._over_at or time.monotonic()
        self.fetch()
        if expected is None:
            expected = self.bench.expected(self.count, self.identity())
        kept = {path for path in expected if stem(path) not in given_up}
        found = tables(self.output)
        assert sorted(found) == sorted(kept)
        differing = [path for path in kept if found[path] != expected[path]]
        assert differing == []
        keys = pq.read_table(self.output / "images", columns=["key"])["key"].to_pylist()
        assert sorted(keys) == sorted(self._keys(given_up))
        assert {stem(name) for name in self.commits()} == {stem(path) for path in kept}
        failed = {stem(path.name) for path in (self.output / "failed").glob("*.json")}
        assert failed == set(given_up)
        summary = json.loads((self.output / "summary.json").read_text())
        missing = {stem(name) for name in summary["missing"]}
        assert (summary["state"], missing) == ("finished", set(given_up))

    def undisturbed(self) -> dict[str, bytes]:
        """The tables of a run over the input as it is now."""
        beside = Case(f"{self.name}, undisturbed", self.draw, self.work / "beside", self.bench, 0)
        beside.source = beside.root = str(self.input)
        beside.settings = self.identity()
        assert beside.start(trouble=Trouble(seconds=0)).wait(LIMIT) == 0, beside.log
        return tables(beside.output)

    def _keys(self, given_up: Collection[str]) -> Iterator[str]:
        """Of all samples of the input."""
        for path in self.input.glob("*.tar"):
            if path.stem not in given_up:
                with tarfile.open(path) as reader:
                    members = [name for name in reader.getnames() if name.endswith(".png")]
                yield from (name.removesuffix(".png") for name in members)

    def reason(self, shard: str) -> str:
        """Why a shard was given up."""
        (path,) = (self.output / "failed").glob(f"{shard}-*.json")
        return str(json.loads(path.read_text())["reason"])

    def identity(self) -> list[str]:
        """Those of the settings that change results."""
        pairs = zip(self.settings[::2], self.settings[1::2], strict=True)
        return [
            text for name, value in pairs if name.startswith("--mask") for text in (name, value)
        ]

    def clear_away(self) -> None:
        """End what is still at work, and delete all files."""
        for drive in self.drives:
            drive.clear_away()
        shutil.rmtree(self.work)
