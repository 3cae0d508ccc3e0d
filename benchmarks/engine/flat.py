"""Whether long runs stay flat: memory, file handles and threads of a worker, from start to end."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.engine.sleeper import Pace, jpegs, real_maps, shard_of
from benchmarks.timing import Target, table, target_table
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.run.accounts.work import Work
from pipeline.run.local_executor import LocalExecutor
from pipeline.run.run import do_all

Results = dict[str, Any]
SMALL, LARGE = (64, 48), (1280, 960)
"""(width, height) of the images in the one long shard, and in the stream."""
IN_A_SHARD = 256
"""Images in each shard of the stream, half a megabyte each."""
LOOKS = 400
"""At the process, spread over a run; at least one a second."""
MARGIN = 96.0
"""MB that a process may grow by: what its allocator keeps of the blocks of its threads differs."""
PER_TABLE_BYTE = 4.0
"""Bytes of memory for each byte of tables that a shard still holds: Arrow's, before compression."""
EARLY, LATE = (0.25, 0.5), (0.75, 0.98)
"""Parts of a run whose looks are compared; before is warm-up, and after, the tables are written."""


@dataclass(frozen=True)
class Look:
    """At a process: resident memory in MB, file handles, threads."""

    mb: float
    handles: int
    threads: int

    @classmethod
    def at_this_process(cls) -> Look:
        """As the kernel has it now."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        handles = len(os.listdir("/proc/self/fd"))
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles, int(status["Threads"]))


def measure(samples: int, gigabytes: float, prompts: int) -> Results:
    """One shard of many samples, and a stream of shards from a web server on this machine.

    Args:
        samples: in the one shard, small images.
        gigabytes: of the stream.
        prompts: of every image.
    """
    with TemporaryDirectory() as folder:
        one, stream = Path(folder, "one"), Path(folder, "stream")
        one.mkdir()
        Path(one, "00000.tar").write_bytes(shard_of(jpegs(SMALL), samples, prompts))
        count = _stream(stream, gigabytes, prompts)
        rows = {f"one shard of {samples:,} images": _in_a_process(folder, str(one), 1)}
        with _served(stream) as address:
            pattern = f"{address}/{{00000..{count - 1:05d}}}.tar"
            name = f"{gigabytes:g} GB as {count} shards"
            rows[name] = _in_a_process(folder, pattern, count)
    return {"prompts": prompts, "rows": rows}


def _stream(folder: Path, gigabytes: float, prompts: int) -> int:
    """Names of one tar that are so large together; how many."""
    folder.mkdir()
    data = shard_of(jpegs(LARGE), IN_A_SHARD, prompts)
    (folder / "00000.tar").write_bytes(data)
    count = max(4, round(gigabytes * 1e9 / len(data)))
    for number in range(1, count):
        os.link(folder / "00000.tar", folder / f"{number:05d}.tar")
    return count


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _in_a_process(folder: str, pattern: str, shards: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.engine.flat", f"{folder}/out-{shards}", pattern]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def run(output: str, pattern: str) -> dict[str, Any]:
    """Do it here.

    Returns:
        `early`, `late`: memory (mean), handles and threads (most) in these parts of the run;
        `allowed_mb`: of growth; `images`, `seconds`.
    """
    torch.set_num_threads(1)
    engine = ExecutionConfig(executor="local", threads=1, log_seconds=30.0)
    config = AnnotateConfig(input=pattern, output=output, engine=engine)
    ledger = Ledger(output)
    ledger.open(config.identity(), config.public(), [])
    shards = find_shards(config.patterns)
    started = time.monotonic()
    with closing(LocalExecutor(config, Pace(0.0, real_maps()).worker())) as executor:
        with _looking() as looks:
            do_all(config, ledger, shards, executor, lambda work: work(), Work())
    commits = ledger.commits()
    if len(commits) != len(shards):
        raise RuntimeError(f"{len(commits)} of {len(shards)} shards: {ledger.failures()}")
    held = max(sum(int(file["bytes"]) for file in commit.files.values()) for commit in commits)
    in_flight = min(len(shards), engine.shards_in_flight)
    return {
        "early": astuple(part(looks, EARLY)),
        "late": astuple(part(looks, LATE)),
        "peak_mb": max(look.mb for look in looks),
        "allowed_mb": MARGIN + PER_TABLE_BYTE * held * in_flight / 1e6,
        "images": sum(commit.samples for commit in commits),
        "seconds": time.monotonic() - started,
    }


@contextmanager
def _looking() -> Iterator[list[Look]]:
    """Looks at this process while the body runs, often at first, and every second later."""
    looks: list[Look] = []
    ended = threading.Event()

    def look() -> None:
        pause = 0.02
        while not ended.wait(pause):
            looks.append(Look.at_this_process())
            if len(looks) >= LOOKS and pause < 1:
                del looks[::2]  # as many again at half the pace, so that parts are parts of time
                pause *= 2

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()


def part(looks: Sequence[Look], of: tuple[float, float]) -> Look:
    """Mean memory, most handles and most threads in a part of a run."""
    some = looks[int(of[0] * len(looks)) : int(of[1] * len(looks))]
    if not some:
        raise RuntimeError("the run was too short to look at it")
    return Look(
        sum(look.mb for look in some) / len(some),
        max(look.handles for look in some),
        max(look.threads for look in some),
    )


def targets(results: Results) -> list[Target]:
    """What makes a run flat."""
    made = []
    for name, row in results["rows"].items():
        early, late = Look(*row["early"]), Look(*row["late"])
        grown = late.mb - early.mb
        made += [
            Target(f"{name}: MB more", grown, row["allowed_mb"], at_least=False),
            Target(f"{name}: file handles", late.handles, early.handles + 2, at_least=False),
            Target(f"{name}: threads", late.threads, early.threads + 2, at_least=False),
        ]
    return made


def markdown(results: Results) -> str:
    """Early and late in each run, and whether that is flat."""
    rows = []
    for name, row in results["rows"].items():
        pairs = list(zip(row["early"], row["late"], strict=True))
        rows.append(
            [
                name,
                f"{row['images'] / row['seconds']:.0f}",
                f"{row['seconds'] / 60:.1f} min",
                *(f"{early:.0f} → {late:.0f}" for early, late in pairs),
                f"{row['peak_mb']:.0f}",
            ]
        )
    header = ["run", "images/s", "took", "resident MB", "file handles", "threads", "peak MB"]
    checks = target_table([target.as_dict() for target in targets(results)])
    return f"{table(header, rows)}\n\n{checks}"


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2])))
