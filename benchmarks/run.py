"""Speed and memory: `python benchmarks/run.py --help` lists what can be measured."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser


def legrad(
    published: str | None = None,
    rounds: int = 5,
    processes: int = 3,
    bfloat16_rounds: int = 3,
    threads: int = 2,
    json: Path | None = None,
) -> int:
    """Compare with the published package on this CPU: ViT-B/16, random weights, float32, 224².

    Both packages are called `legrad`, so the published one has an interpreter of its own.

    Args:
        published: that interpreter; without it LEGRAD_PUBLISHED, or what `published` made.
        rounds: how often each measurement is repeated, in turns, in each pair of processes.
        processes: in how many pairs of processes, for a process can be slow as a whole.
        bfloat16_rounds: the same for this project in bfloat16 against float32, which is slow where
            a processor has no instructions for it.
        threads: PyTorch's, on both sides.
        json: also write the figures to this file.
    """
    from benchmarks.published import figures
    from benchmarks.published.compare import compare
    from benchmarks.published.install import find
    from benchmarks.published.plan import VIT_B_16, Plan

    try:
        python = find(published)
        plan = Plan(
            VIT_B_16,
            layers=(12, 2),
            rounds=rounds,
            processes=processes,
            bfloat16_rounds=bfloat16_rounds,
            threads=threads,
        )
    except (FileNotFoundError, ValueError) as error:
        return fail(str(error))
    results = compare(plan, str(python))
    return report(figures.markdown(results), results, json)


def methods(
    published: str | None = None,
    rounds: int = 5,
    batch_rounds: int = 1,
    json: Path | None = None,
) -> int:
    """Time every method on this CPU, as published and as computed here: ViT-B/16, float32, 224².

    For one image and text, which is table 4 of LeGrad's paper, and for 8 images with 5 texts each.

    Args:
        published: interpreter of the published package; see the command `legrad`.
        rounds: how often the measurement of one pair is repeated, in turns.
        batch_rounds: the same for the batch.
        json: also write the figures to this file.
    """
    from benchmarks import methods
    from benchmarks.published.install import find

    try:
        python = find(published)
    except FileNotFoundError as error:
        return fail(str(error))
    results = methods.compare(str(python), rounds, batch_rounds)
    return report(methods.markdown(results), results, json)


def siglip(rounds: int = 5, json: Path | None = None) -> int:
    """Measure what 100 prompts per image cost against one on this CPU: ViT-B-16-SigLIP, 224².

    Args:
        rounds: how often each case is measured, in turns.
        json: also write the figures to this file.
    """
    from benchmarks import siglip as pooled

    results = pooled.measure(pooled.random_tower(), 224, rounds)
    return report(pooled.markdown(results), results, json)


def published(folder: Path | None = None) -> int:
    """Make an interpreter with the published package, outside this repository.

    Args:
        folder: where; a folder in the user's cache by default, which `legrad` looks in.
    """
    from benchmarks.published.install import default_folder, install

    folder = folder or default_folder()
    print(f"installing the published package and PyTorch in {folder} ...", flush=True)
    print(f"made {install(folder)}")
    return 0


def gpu(memory_budget: int = 1 << 30, json: Path | None = None) -> int:
    """Measure one CUDA device: its bf16 matrix peak, then ViT-B/16 and ViT-bigG-14.

    Weights are random and nothing is downloaded. It takes PyTorch, timm, open_clip (with ftfy),
    jaxtyping and jsonargparse, and no Ray. On a machine without a network, carry the missing ones
    there as wheels: `pip download --no-deps`, then `pip install --no-index --no-deps`. Where
    `make setup` was not run, start it as `python -m benchmarks.run gpu`.

    Args:
        memory_budget: bytes that the temporaries of one chunk may take.
        json: also write the figures to this file.
    """
    import torch

    if not torch.cuda.is_available():
        return fail("this benchmark needs a CUDA device, and PyTorch finds none")
    from benchmarks import accelerator

    results = accelerator.measure(torch.device("cuda"), torch.bfloat16, memory_budget=memory_budget)
    return report(accelerator.markdown(results), results, json)


def executors(shards: int = 24, images: int = 64, actors: int = 2, json: Path | None = None) -> int:
    """Measure how busy the executors keep a model that sleeps 10 ms per image.

    Args:
        shards: how many.
        images: in each.
        actors: of Ray.
        json: also write the figures to this file.
    """
    from benchmarks import executors as stand_in

    results = stand_in.measure(shards, images, actors)
    return report(stand_in.markdown(results), results, json)


def driver(shards: list[int] | None = None, actors: int = 4, json: Path | None = None) -> int:
    """Measure what a run costs apart from its work, with workers that only commit.

    Args:
        shards: how many, 1,000 and 10,000 by default.
        actors: of Ray.
        json: also write the figures to this file.
    """
    from benchmarks import driver as committers

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
    from benchmarks import scale as paper

    results = paper.measure(paper.Factors(shards, images, actors, images_per_second))
    return report(paper.markdown(results), results, json)


def vocabulary(
    classes: int = 1000, rounds: int = 5, threads: int = 2, json: Path | None = None
) -> int:
    """Measure what choosing prompts from a class file costs, on the demo's shards and model.

    Args:
        classes: in the class file.
        rounds: how often each side is measured, in turns.
        threads: PyTorch's.
        json: also write the figures to this file.
    """
    from benchmarks import vocabulary as choosing

    results = choosing.measure(classes, rounds, threads)
    return report(choosing.markdown(results), results, json)


def masks(maps: int = 5, rounds: int = 21, json: Path | None = None) -> int:
    """Measure what a mask costs, from raw map to run lengths, on one core.

    Args:
        maps: of one image.
        rounds: how often each way is measured, in turns.
        json: also write the figures to this file.
    """
    from benchmarks import masks as making

    results = making.measure(maps, rounds)
    return report(making.markdown(results), results, json)


def decode(photographs: str, count: int = 5, rounds: int = 15, json: Path | None = None) -> int:
    """Measure decoding and squashing of large and small photographs on one core, by four ways.

    Args:
        photographs: shards with some, which are enlarged.
        count: how many of them are taken.
        rounds: how often each way is measured, in turns.
        json: also write the figures to this file.
    """
    from benchmarks import decode as decoding

    results = decoding.measure(photographs, count, rounds)
    return report(decoding.markdown(results), results, json)


def host(
    images: int = 128,
    large: int = 16,
    rounds: int = 5,
    prompts: list[int] = [1, 5],  # noqa: B006  # only read; the parser shows it as the default
    decode: list[Literal["full", "scaled"]] = ["full", "scaled"],  # noqa: B006
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
        json: also write the figures to this file.
    """
    from benchmarks import host as profile

    results = profile.measure(images, large, rounds, prompts, decode)
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

    from benchmarks import busy as engine

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
    from benchmarks import flat as runs

    results = runs.measure(samples, gigabytes, prompts)
    report(runs.markdown(results), results, json)
    return 0 if all(target.met for target in runs.targets(results)) else 1


def points(rows: int = 5_000_000, images: int = 100_000, json: Path | None = None) -> int:
    """Measure the points stage of evaluate.py on a synthetic file of point labels.

    Args:
        rows: of the file.
        images: that the rows are of.
        json: also write the figures to this file.
    """
    from benchmarks import points as stage

    results = stage.measure(rows, images)
    return report(stage.markdown(results), results, json)


def export(masks: int = 1_000_000, json: Path | None = None) -> int:
    """Measure exports of a synthetic run, and the check of the COCO file.

    Args:
        masks: of the run.
        json: also write the figures to this file.
    """
    from benchmarks import export as exports

    results = exports.measure(masks)
    return report(exports.markdown(results), results, json)


def loading(rounds: int = 7, json: Path | None = None) -> int:
    """Compare the loader with reading and decoding images alone, at 640×480 in one process.

    Args:
        rounds: how often each side is measured, in turns; figures are medians of pairs.
        json: also write the figures to this file.
    """
    from benchmarks import loading as loader

    results = loader.measure(rounds)
    return report(loader.markdown(results), results, json)


def views(
    layers: int | float = 0.67, step: int = 1, threads: int = 1, json: Path | None = None
) -> int:
    """Measure what views of an image bring on the demo's scenes, and what they cost.

    Args:
        layers: that are explained, as --layers of a run.
        step: take every scene, every second, ...
        threads: PyTorch's.
        json: also write the figures to this file.
    """
    from benchmarks import views as seen

    results = seen.measure(layers, step, threads)
    return report(seen.markdown(results), results, json)


def recipes(images: int = 48, rounds: int = 7, json: Path | None = None) -> int:
    """Measure what each preset costs on the demo, and what refinement does by itself, on one core.

    Args:
        images: of the demo, for each preset.
        rounds: how often each refinement is measured, in turns.
        json: also write the figures to this file.
    """
    from benchmarks import recipes as presets

    results = presets.measure(images, rounds)
    return report(presets.markdown(results), results, json)


def report(text: str, results: dict[str, Any], file: Path | None) -> int:
    """Print the tables and write the figures."""
    print(f"\n{text}")
    if file is not None:
        file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return 0


def fail(reason: str) -> int:
    """Say in one line what is missing."""
    print(reason, file=sys.stderr)
    return 2


COMMANDS: dict[str, Callable[..., int]] = {
    "legrad": legrad,
    "methods": methods,
    "siglip": siglip,
    "published": published,
    "gpu": gpu,
    "executors": executors,
    "driver": driver,
    "scale": scale,
    "vocabulary": vocabulary,
    "masks": masks,
    "decode": decode,
    "host": host,
    "busy": busy,
    "flat": flat,
    "points": points,
    "export": export,
    "loading": loading,
    "views": views,
    "recipes": recipes,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmark; its docstring is its help text."""
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        about = (inspect.getdoc(command) or "").partition("\nArgs:")[0]
        options = ArgumentParser(description=about)
        options.add_function_arguments(command, as_group=False)
        commands.add_subcommand(name, options, help=about.partition("\n")[0])
    chosen = parser.parse_args(arguments)
    return COMMANDS[chosen.subcommand](**chosen[chosen.subcommand].as_dict())


if __name__ == "__main__":
    sys.exit(main())
