"""The commands of `benchmarks/run.py` that are about what runs around the model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from benchmarks.reports import fail, report


def executors(shards: int = 24, images: int = 64, actors: int = 2, json: Path | None = None) -> int:
    """Measure how busy the executors keep a model that sleeps 10 ms per image.

    Args:
        shards: how many.
        images: in each.
        actors: of Ray.
        json: also write the figures to this file.
    """
    from benchmarks.engine import executors as stand_in

    results = stand_in.measure(shards, images, actors)
    return report(stand_in.markdown(results), results, json)


def driver(shards: list[int] | None = None, actors: int = 4, json: Path | None = None) -> int:
    """Measure what a run costs apart from its work, with workers that only commit.

    Args:
        shards: how many, 1,000 and 10,000 by default.
        actors: of Ray.
        json: also write the figures to this file.
    """
    from benchmarks.engine import driver as committers

    results = committers.measure(shards or [1_000, 10_000], actors)
    return report(committers.markdown(results), results, json)


def scale(
    shards: int = 100_000,
    images: int = 10_000,
    actors: int = 1_000,
    images_per_second: float = 211.0,
    json: Path | None = None,
) -> int:
    """Reckon with a run of a billion images, and simulate what may happen to it.

    Args:
        shards: how many.
        images: in each.
        actors: of Ray, with a GPU each.
        images_per_second: of one of them; `gpu` measures it.
        json: also write the figures to this file.
    """
    from benchmarks.engine import scale as paper

    results = paper.measure(paper.Factors(shards, images, actors, images_per_second))
    return report(paper.markdown(results), results, json)


def host(
    images: int = 128,
    large: int = 16,
    rounds: int = 5,
    prompts: list[int] = [1, 5],  # noqa: B006  # only read; the parser shows it as the default
    decode: list[Literal["full", "scaled"]] = ["full", "scaled"],  # noqa: B006
    grain: int = 4,
    json: Path | None = None,
) -> int:
    """Profile what the host does for an image, from tar to commit, in core-milliseconds.

    Processor time, so that other work beside it changes little. `together`: all of it in the
    threads of a worker, whose model takes no time.

    Args:
        images: of 640 x 480 in a shard.
        large: of 4000 x 3000 in a shard.
        rounds: how often each shard is done; medians are taken.
        prompts: of every image, one profile for each number.
        decode: how JPEGs are decoded, one profile for each way: full, or scaled as some presets do.
        grain: pixels of the noise that the pictures are made of: the coarser, the smaller the file.
        json: also write the figures to this file.
    """
    from benchmarks.engine import host as profile

    results = profile.measure(images, large, rounds, prompts, decode, grain=grain)
    return report(profile.markdown(results), results, json)


def busy(
    cores: list[int] | None = None,
    executors: list[str] | None = None,
    models: dict[str, float] | None = None,
    sizes: list[str] | None = None,
    decode: list[Literal["full", "scaled"]] = ["full", "scaled"],  # noqa: B006
    seconds: float = 30.0,
    json: Path | None = None,
) -> int:
    """Measure how many cores keep a GPU busy, with a model that sleeps for the time it would take.

    Five prompts per image; from few cores to many, until the model is busy for 95 % of the time.

    Args:
        cores: how many, rising (default: 1, 2, 4 and so on, and all).
        executors: local, ray (default: both).
        models: milliseconds per image by name (default: ViT-bigG-14 5.4, ViT-L-14 0.9).
        sizes: of the images, 640x480, 4000x3000 (default: both).
        decode: how JPEGs are decoded, full, scaled (default: both).
        seconds: that each run takes, about.
        json: also write the figures to this file.
    """
    import os

    from benchmarks.engine import busy as engine

    there = len(os.sched_getaffinity(0))
    known = {f"{width}x{height}": (width, height) for width, height in engine.SIZES}
    counts = cores or sorted({*(c for c in (1, 2, 4, 8, 16, 32) if c < there), there})
    if wrong := [size for size in sizes or [] if size not in known]:
        return fail(f"--sizes {wrong[0]}: {', '.join(known)}")
    if max(counts) > there or min(counts) < 1:
        return fail(f"--cores {counts}: this process has {there}")
    chosen = [known[size] for size in sizes or known]
    ways = executors or ["local", "ray"]
    results = engine.measure(ways, counts, models or engine.MODELS, chosen, seconds, decode)
    return report(engine.markdown(results), results, json)


def flat(
    samples: int = 100_000, gigabytes: float = 50.0, prompts: int = 1, json: Path | None = None
) -> int:
    """See whether memory, file handles and threads stay what they are; exit 1 where they do not.

    Args:
        samples: of one shard, small images.
        gigabytes: of a stream of shards, larger images, from a web server on this machine.
        prompts: of every image.
        json: also write the figures to this file.
    """
    from benchmarks.engine import flat as runs

    results = runs.measure(samples, gigabytes, prompts)
    report(runs.markdown(results), results, json)
    return 0 if all(target.met for target in runs.targets(results)) else 1
