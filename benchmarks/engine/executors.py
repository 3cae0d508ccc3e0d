"""How busy the executors keep a model: one that sleeps instead of computing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.engine.sleeper import Pace, make_shards, real_maps, slept
from benchmarks.timing import table
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.run.accounts.work import Work
from pipeline.run.executors import make_executor
from pipeline.run.run import do_all

SIZE, PROMPTS = (500, 375), 2
SECONDS_PER_IMAGE = 0.010


def measure(shards: int, images: int, actors: int) -> dict[str, dict[str, float]]:
    """Images per second and busy fraction of every design, within the span of the sleeps.

    Args:
        shards: how many.
        images: in each.
        actors: of Ray.
    """
    results = {}
    pace = Pace(SECONDS_PER_IMAGE, real_maps())
    with TemporaryDirectory() as folder:
        data = Path(folder, "data")
        make_shards(data, shards, images, SIZE, PROMPTS)
        for in_flight in (1, 2):
            for engine in (
                ExecutionConfig(executor="local", workers=1, threads=1, shards_in_flight=in_flight),
                ExecutionConfig(
                    executor="ray", workers=actors, threads=1, shards_in_flight=in_flight
                ),
            ):
                design = f"{engine.executor}, {engine.workers} x {in_flight}"
                results[design] = _run(data, Path(folder, design), engine, pace)
    return results


def markdown(results: dict[str, dict[str, float]]) -> str:
    """The table."""
    rows = [
        [design, f"{figures['images_per_s']:.0f}", f"{figures['busy']:.2f}"]
        for design, figures in results.items()
    ]
    return table(["executor, workers x shards in flight", "images/s", "busy"], rows)


def _run(data: Path, output: Path, engine: ExecutionConfig, pace: Pace) -> dict[str, float]:
    log = output / "sleeps"
    log.mkdir(parents=True)
    config = AnnotateConfig(input=str(data), output=str(output), engine=engine)
    make_worker = replace(pace, log=log).worker()
    shards = find_shards(config.patterns)
    ledger = Ledger(config.output)
    ledger.open(config.identity(), config.public(), [])
    with closing(make_executor(config, ledger, make_worker)) as executor:
        do_all(config, ledger, shards, executor, lambda work: work(), Work())
    return _busy(log, engine.workers)


def _busy(log: Path, workers: int) -> dict[str, float]:
    """Over the span from the first sleep to the last."""
    sleeps = slept(log)
    span = max(end for _, end, _ in sleeps) - min(start for start, _, _ in sleeps)
    asleep = sum(end - start for start, end, _ in sleeps)
    return {"images_per_s": asleep / SECONDS_PER_IMAGE / span, "busy": asleep / span / workers}
