"""How many cores keep a GPU busy: a model that sleeps for the time that one would take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.engine.sleeper import Pace, jpegs, real_maps, shard_of, slept
from benchmarks.memory import peak_bytes
from benchmarks.timing import table
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.run.accounts.work import Work
from pipeline.run.executors import make_executor
from pipeline.run.run import do_all

Results = dict[str, Any]
MODELS = {"ViT-bigG-14": 5.4, "ViT-L-14": 0.9}
"""Milliseconds that an image with five prompts takes a GPU."""
DECODES = ("full", "scaled")
SIZES = {(640, 480): 64, (4000, 3000): 16}
"""(width, height) of images, and how many are in a shard."""
EXPECTED = {
    (640, 480, "full"): 8.0,
    (640, 480, "scaled"): 8.0,
    (4000, 3000, "full"): 120.0,
    (4000, 3000, "scaled"): 65.0,
}
"""Milliseconds of a core for an image: how many images a run of some seconds is, and no more."""
PROMPTS = 5
ENOUGH = 0.95
WARM = 0.2
"""Part of the run that is not looked at: the first batches wait for the first images."""
LEAST_SHARDS = 6


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        folder: for its input and output.
        executor: `local` or `ray`.
        cores: that it may use; the threads of its worker are as many.
        milliseconds: that the model takes for an image.
        seconds: that the run is to take, about.
        width: of the images.
        height: of the images.
        decode: `full` or `scaled`; see `AnnotateConfig.decode`.
    """

    folder: str
    executor: Any
    cores: int
    milliseconds: float
    seconds: float
    width: int
    height: int
    decode: Any


def measure(
    executors: Sequence[str],
    cores: Sequence[int],
    models: Mapping[str, float],
    sizes: Sequence[tuple[int, int]],
    seconds: float,
    decodes: Sequence[str] = DECODES,
) -> Results:
    """The busy share of one model, from few cores to many, until it is enough.

    Args:
        executors: `local`, `ray`, or both.
        cores: how many, rising; no more than there are.
        models: milliseconds per image by name.
        sizes: (width, height) of the images, of `SIZES`.
        seconds: that each run takes, about.
        decodes: how JPEGs are decoded, `full` or `scaled`.
    """
    rows = []
    for size, decode, (name, milliseconds), executor in product(
        sizes, decodes, models.items(), executors
    ):
        about = dict(model=name, ms=milliseconds, size=list(size), decode=decode, executor=executor)
        for count in cores:
            figures = _in_a_process(executor, count, milliseconds, seconds, size, decode)
            rows.append(about | {"cores": count} | figures)
            print(markdown({"rows": rows[-1:]}).splitlines()[-1], flush=True)
            if figures["busy"] >= ENOUGH:
                break
    return {"rows": rows}


def _in_a_process(
    executor: str,
    cores: int,
    milliseconds: float,
    seconds: float,
    size: tuple[int, int],
    decode: str,
) -> dict[str, float]:
    """One case in a process of its own, for cores are given to processes."""
    with TemporaryDirectory() as folder:
        case = Case(folder, executor, cores, milliseconds, seconds, *size, decode)
        command = [sys.executable, "-m", "benchmarks.engine.busy", json.dumps(asdict(case))]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def run(case: Case) -> dict[str, float]:
    """Do it here, with so many cores from now on.

    Returns:
        `busy`: share of the time in which the model was at work; `images_per_s`; `core_ms`: of
        the threads of the stages for an image, as the commits say; `process_ms`: of this whole
        process, which does the work where the executor is `local`; `mb`: its peak of memory.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    torch.set_num_threads(1)
    size = case.width, case.height
    data, log = Path(case.folder, "in"), Path(case.folder, "sleeps")
    log.mkdir()
    engine = ExecutionConfig(executor=case.executor, workers=1, threads=case.cores)
    config = AnnotateConfig(
        input=str(data), output=f"{case.folder}/out", decode=case.decode, engine=engine
    )
    _make_shards(case, data, SIZES[size])
    pace = Pace(case.milliseconds / 1000, real_maps(), log)
    ledger = Ledger(config.output)
    ledger.open(config.identity(), config.public(), [])
    shards = find_shards(config.patterns)
    with closing(make_executor(config, ledger, pace.worker())) as executor:
        before = time.process_time()
        do_all(config, ledger, shards, executor, lambda work: work(), Work())
        used = time.process_time() - before
    commits = ledger.commits()
    if len(commits) != len(shards):
        raise RuntimeError(f"{len(commits)} of {len(shards)} shards: {ledger.failures()}")
    images = sum(commit.samples for commit in commits)
    core = sum(sum(commit.processor.values()) for commit in commits)
    figures = {
        "core_ms": 1000 * core / images,
        "process_ms": 1000 * used / images,
        "mb": peak_bytes() / 1e6,
    }
    return busy_share(slept(log)) | figures


def busy_share(sleeps: Sequence[tuple[float, float, int]]) -> dict[str, float]:
    """How busy one model was, and its pace, after the first part of the run.

    Args:
        sleeps: begin, end and images of each.
    """
    first, last = min(sleep[0] for sleep in sleeps), max(sleep[1] for sleep in sleeps)
    start = first + WARM * (last - first)
    counted = [sleep for sleep in sleeps if sleep[0] >= start]
    if not counted:
        raise RuntimeError("all batches began in the first part of the run: take more seconds")
    span = max(end for _, end, _ in counted) - min(begin for begin, _, _ in counted)
    asleep = sum(end - begin for begin, end, _ in counted)
    return {"busy": asleep / span, "images_per_s": sum(n for _, _, n in counted) / span}


def _make_shards(case: Case, folder: Path, images: int) -> None:
    """As many names of one tar as take the model, or the cores, so many seconds."""
    size = case.width, case.height
    pace = (
        max(case.milliseconds, EXPECTED[case.width, case.height, case.decode] / case.cores) / 1000
    )
    count = max(LEAST_SHARDS, round(case.seconds / pace / images))
    folder.mkdir()
    first = folder / "00000.tar"
    first.write_bytes(shard_of(jpegs(size), images, PROMPTS))
    for number in range(1, count):
        os.link(first, folder / f"{number:05d}.tar")


def markdown(results: Results) -> str:
    """A row for every run."""
    rows = [
        [
            f"{row['model']}, {row['ms']:g} ms",
            f"{row['size'][0]} x {row['size'][1]}, {row['decode']}",
            row["executor"],
            str(row["cores"]),
            f"{row['images_per_s']:.0f}",
            f"{100 * row['busy']:.0f} %",
            f"{row['core_ms']:.1f}",
        ]
        for row in results["rows"]
    ]
    header = ["stand-in", "images", "executor", "cores", "images/s", "busy", "core-ms per image"]
    return table(header, rows)


if __name__ == "__main__":
    print(json.dumps(run(Case(**json.loads(sys.argv[1])))))
