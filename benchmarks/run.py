"""Speed and memory: `python benchmarks/run.py --help` lists what can be measured."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from jsonargparse import ArgumentParser

from benchmarks.engine.commands import busy, driver, executors, flat, host, scale
from benchmarks.reports import fail, report


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
