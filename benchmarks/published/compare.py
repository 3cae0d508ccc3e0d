"""This project's LeGrad against the published package: the same weights and inputs, on a CPU.

The two are timed in turns, in several pairs of processes. Memory, and bfloat16 against float32,
concern this project alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file

from benchmarks.published.child import Child
from benchmarks.published.figures import summary, targets
from benchmarks.published.plan import Plan, write_inputs
from benchmarks.timing import Action, Figures, interleaved, take_turns

Results: TypeAlias = dict[str, Any]
Start: TypeAlias = Callable[[str], Child]


def compare(plan: Plan, published: str, say: Callable[[str], None] = print) -> Results:
    """Run both sides and return every figure.

    Args:
        plan: what to compare.
        published: the interpreter of the published package.
        say: gets a line per step.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(plan, folder)

        def child(side: str) -> Child:
            python = sys.executable if side == "ours" else published
            return Child(side, python, folder, plan.threads)

        agreement, pairs = compare_in_pairs(plan, child, folder, say)
        say(f"memory of {plan.batch} images ...")
        memory = measure_memory(plan, child)
        say("bfloat16 ...")
        half = measure_bfloat16(plan, child, folder)
    results: Results = {
        "torch": torch.__version__,
        "threads": plan.threads,
        "rounds": plan.rounds,
        "processes": plan.processes,
        "load_average": os.getloadavg()[0],
        "agreement": agreement,
        **summary(plan, pairs),
        "memory": memory,
        "bfloat16": half,
    }
    return results | {"targets": [target.as_dict() for target in targets(results)]}


def compare_in_pairs(
    plan: Plan, child: Start, folder: Path, say: Callable[[str], None]
) -> tuple[float, list[dict[str, list[Figures]]]]:
    """The largest difference of the maps, and what each pair of processes took in each round."""
    agreement, pairs = 0.0, []
    for number in range(plan.processes):
        with child("ours") as ours, child("published") as theirs:
            if not number:
                for side in (ours, theirs):
                    hello = side.hello
                    has = f"has {hello['attribute']}"
                    say(f"{side.side}: {hello['legrad']} ({has}), torch {hello['torch']}")
            difference = compare_maps(plan, ours, theirs, folder)
            agreement = max(agreement, difference)
            say(f"maps agree within {difference:.1e}; timing, {plan.rounds} rounds ...")
            pairs.append(take_turns(actions(plan, ours, theirs), plan.rounds))
    return agreement, pairs


def compare_maps(plan: Plan, ours: Child, theirs: Child, folder: Path) -> float:
    """The largest difference between the final maps, whose range is 1. Warms both sides up too."""
    worst = 0.0
    for layers, prompts, forms in plan.cases():
        expected = maps(ours, folder, "batch", layers, prompts)
        for form in forms:
            difference = expected - maps(theirs, folder, form, layers, prompts)
            worst = max(worst, difference.abs().max().item())
    return worst


def maps(
    child: Child, folder: Path, form: str, layers: int, prompts: int, images: int = 1
) -> torch.Tensor:
    """The normalised heatmaps that a side makes, in the size of the images."""
    file = folder / f"{child.side} {form}.safetensors"
    child.ask(form, layers, prompts, images=images, measure=str(file))
    return load_file(file)["maps"]


def actions(plan: Plan, ours: Child, theirs: Child) -> dict[str, Action]:
    """What is timed, one image each: the bare forward pass, and every case on both sides."""
    found = {"forward": asked(ours, "forward", plan.layers[0], 1)}
    found["forward"]()
    for layers, prompts, forms in plan.cases():
        found[f"ours {layers} {prompts}"] = asked(ours, "batch", layers, prompts)
        for form in forms:
            found[f"{form} {layers} {prompts}"] = asked(theirs, form, layers, prompts)
    return found


def asked(child: Child, form: str, layers: int, prompts: int) -> Action:
    """Times one run of a side."""
    return lambda: child.ask(form, layers, prompts)


def measure_memory(plan: Plan, child: Start) -> Results:
    """Resident bytes for a batch, each in a fresh process: the bare forward pass, and ours."""
    layers, prompts = plan.layers[0], plan.prompts[1]
    peaks = {}
    for name, form in (("forward", "forward"), ("ours", "batch")):
        with child("ours") as side:
            usage = side.ask(
                form, layers, prompts, images=plan.batch, chunk=plan.chunk, measure="memory"
            )
        peaks[name] = usage["peak"]
    return {
        "images": plan.batch,
        "prompts": prompts,
        "layers": layers,
        "chunk": plan.chunk,
        "peaks": peaks,
        "ratio": (peaks["ours"] - plan.chunk) / peaks["forward"],
    }


def measure_bfloat16(plan: Plan, child: Start, folder: Path) -> Results:
    """Seconds of bfloat16 and float32 in turns, and how well their masks agree."""
    layers = plan.layers[0]
    forms = {"float32": "batch", "bfloat16": "bfloat16"}
    images = min(plan.mask_images, plan.batch)
    with child("ours") as side:
        made = {
            name: maps(side, folder, form, layers, plan.prompts[1], images)
            for name, form in forms.items()
        }
        timed = {
            f"{name} {prompts}": asked(side, form, layers, prompts)
            for prompts in plan.prompts
            for name, form in forms.items()
        }
        measured = interleaved(timed, plan.bfloat16_rounds)
    return {
        "layers": layers,
        "rounds": plan.bfloat16_rounds,
        "rows": [
            {"prompts": prompts}
            | {name: measured[f"{name} {prompts}"]["seconds"] for name in forms}
            for prompts in plan.prompts
        ],
        "masks": len(made["float32"]),
        "mask_iou": mask_iou(made["float32"], made["bfloat16"]),
    }


def mask_iou(heat: torch.Tensor, other: torch.Tensor, threshold: float = 0.5) -> float:
    """Mean intersection over union of the masks of two times Q heatmaps [Q, H, W] in 0..1."""
    masks, others = heat > threshold, other > threshold
    both = (masks & others).sum(dim=(1, 2))
    either = (masks | others).sum(dim=(1, 2))
    return (both / either).mean().item()
