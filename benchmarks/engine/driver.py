"""What a run costs apart from its work: shards whose worker does nothing but commit them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.memory import peak_bytes
from benchmarks.timing import table
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Counts, make_commit
from pipeline.run.plan import plan
from pipeline.run.queue import Trial
from pipeline.run.run import run_shards
from pipeline.run.worker import ShardWorker

COUNTS = Counts(samples=1, statuses={"annotated": 1}, rejects={}, prompts=1, prompts_cut=0, masks=1)
LINKS = 30_000
"""Of one file, at most: ext4 allows 65,000."""
LEFT = 20
"""One in so many shards is taken back for the measurement of a resume: 95 % stay."""


class Committer(ShardWorker):
    """Commits every shard as it comes, with tables of a few bytes."""

    def __init__(self, config: AnnotateConfig) -> None:
        super().__init__(config)
        self._made = config.fingerprint()

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        """Commit it."""
        files = {f"{t}/{trial.shard.name}.parquet": b"" for t in ("annotations", "images")}
        commit = make_commit(trial.shard, self._made, COUNTS, files, seconds=0.0, attempt=1)
        self.commit(commit, files)
        on_images(1)


def measure(shards: list[int], actors: int) -> dict[str, dict[str, float]]:
    """Every number of shards on both executors, each in a driver of its own.

    Args:
        shards: how many.
        actors: of Ray.
    """
    results = {}
    for executor in ("local", "ray"):
        for count in shards:
            with TemporaryDirectory() as folder:
                data = Path(folder, "in")
                make_shards(data, count)
                one = [
                    sys.executable,
                    "-m",
                    "benchmarks.engine.driver",
                    folder,
                    executor,
                    str(actors),
                ]
                ended = subprocess.run(one, stdout=subprocess.PIPE, text=True, check=True)
                results[f"{executor}, {count:,}"] = json.loads(ended.stdout.splitlines()[-1])
    return results


def make_shards(folder: Path, count: int) -> None:
    """Tars of one sample, each a name of one of a few files."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "first", "w") as archive:
        for name in ("0.jpg", "0.json"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    tar = (folder / "first").read_bytes()
    for number in range(count):
        path = folder / f"{number:06d}.tar"
        if number % LINKS:
            os.link(folder / f"{number - number % LINKS:06d}.tar", path)
        else:
            path.write_bytes(tar)


def markdown(results: dict[str, dict[str, float]]) -> str:
    """The table."""
    rows = [
        [
            name,
            f"{figures['shards_per_s']:,.0f}",
            *(f"{figures[key]:.1f} s" for key in ("plan_s", "resume_s", "end_s")),
            *(f"{figures[key]:.0f} MB" for key in ("start_mb", "peak_mb")),
        ]
        for name, figures in results.items()
    ]
    times = ["to plan", "to resume at 95 %", "to end"]
    return table(
        ["executor, shards", "shards/s", *times, "memory at the start", "at its peak"], rows
    )


def drive(folder: Path, executor: Any, actors: int) -> dict[str, float]:
    """One run, and one that goes on with it.

    Returns:
        `shards_per_s` between the first shard and the last, seconds to plan, to plan what is left
        at 95 %, and from the last shard to the end; the driver's memory before the run
        and at its peak.
    """
    engine = ExecutionConfig(executor=executor, workers=actors, threads=1, log_seconds=10.0)
    config = AnnotateConfig(input=str(folder / "in"), output=str(folder / "out"), engine=engine)
    ledger = Ledger(config.output)
    ledger.open(config.identity(), config.public(), [])
    start = peak_bytes() / 1e6
    begun = time.monotonic()
    shards = find_shards(config.patterns)
    plan(config, ledger, shards)
    planned = time.monotonic()
    summary = run_shards(config, ledger, shards, Committer, ledger.write_index)
    ended = time.monotonic()
    assert summary.shards == len(shards)
    written = sorted(path.stat().st_mtime for path in Path(config.output, "commits").glob("*.json"))
    finished = Path(config.output, "summary.json").stat().st_mtime
    figures = {
        "shards_per_s": (len(written) - 1) / (written[-1] - written[0]),
        "plan_s": planned - begun,
        "end_s": finished - written[-1],
        "run_s": ended - planned,
        "start_mb": start,
        "peak_mb": peak_bytes() / 1e6,
    }
    for commit in sorted(Path(config.output, "commits").glob("*.json"))[::LEFT]:
        commit.unlink()
    begun = time.monotonic()
    left = plan(config, Ledger(config.output), find_shards(config.patterns))
    figures["resume_s"] = time.monotonic() - begun
    assert len(left.todo) == -(-len(shards) // LEFT)
    return figures


if __name__ == "__main__":
    print(json.dumps(drive(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
