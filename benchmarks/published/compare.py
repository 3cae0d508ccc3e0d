"""This project's LeGrad against the published package: the same weights and inputs, on a CPU."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file

from benchmarks.published.child import Child
from benchmarks.timing import (
    Action,
    Figures,
    Target,
    at_least_one,
    extra_prompt,
    medians,
    table,
    take_turns,
)

Results = dict[str, Any]

VIT_B_16 = {
    "embed_dim": 512,
    "vision_cfg": {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1},
}
"""Its text tower is a token one: texts are random embeddings here."""

FORMS = {
    "batch": "all prompts in one call, the package's own way: it repeats the image",
    "loop": "one call per prompt",
    "reuse": "one forward pass, then one call per prompt without the image",
}
"""The three ways to use the published package for several prompts. For one they are the same."""


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        config: an open_clip model config.
        layers: how many of the last layers, each a case.
        prompts: how many prompts per image: one, and more.
        rounds: repetitions of each timing, in turns, in each pair of processes.
        processes: pairs of processes, one after the other. Where a process happens to have its
            memory can cost either side a quarter of its speed, for as long as it runs.
        threads: PyTorch's, on both sides.
        batch: images in the memory measurement.
        chunk: bytes that one chunk of prompts may take in the memory measurement.
    """

    config: dict[str, Any]
    layers: tuple[int, ...]
    prompts: tuple[int, int] = (1, 5)
    rounds: int = 5
    processes: int = 3
    threads: int = 2
    batch: int = 16
    chunk: int = 64 << 20

    def __post_init__(self) -> None:
        """Refuse to measure nothing.

        Raises:
            ValueError: there is no round, or no pair of processes.
        """
        at_least_one(rounds=self.rounds, processes=self.processes)


def compare(plan: Plan, published: str, say: Callable[[str], None] = print) -> Results:
    """Run both sides and return every figure.

    Args:
        plan: what to compare.
        published: the interpreter of the published package.
        say: gets a line per step.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exchange(plan, folder)

        def child(side: str) -> Child:
            python = sys.executable if side == "ours" else published
            return Child(side, python, folder, plan.threads)

        agreement = 0.0
        measured: dict[str, list[Figures]] = {}
        for number in range(plan.processes):
            with child("ours") as ours, child("published") as theirs:
                imports = {side.side: side.hello for side in (ours, theirs)}
                if not number:
                    for side, hello in imports.items():
                        has = f"has {hello['attribute']}"
                        say(f"{side}: {hello['legrad']} ({has}), torch {hello['torch']}")
                difference = compare_maps(plan, ours, theirs, folder)
                agreement = max(agreement, difference)
                say(f"maps agree within {difference:.1e}; timing, {plan.rounds} rounds ...")
                for name, turns in take_turns(actions(plan, ours, theirs), plan.rounds).items():
                    measured.setdefault(name, []).extend(turns)
        say(f"memory of {plan.batch} images ...")
        memory = measure_memory(plan, child)
    results: Results = {
        "imports": imports,
        "threads": plan.threads,
        "rounds": plan.rounds,
        "processes": plan.processes,
        "load_average": os.getloadavg()[0],
        "agreement": agreement,
        **summary(plan, medians(measured)),
        "memory": memory,
    }
    return results | {"targets": [target.as_dict() for target in targets(results)]}


def exchange(plan: Plan, folder: Path) -> None:
    """Write weights and inputs, seeded, for both sides to read."""
    torch.manual_seed(0)
    config = plan.config
    model = CLIP(
        config["embed_dim"],
        CLIPVisionCfg(**config["vision_cfg"]),
        CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=config.get("quick_gelu", False),
    )
    side = config["vision_cfg"]["image_size"]
    text = torch.randn(max(plan.prompts), config["embed_dim"])
    tensors = {name: value.contiguous() for name, value in model.visual.state_dict().items()}
    tensors["images"] = torch.randn(plan.batch, 3, side, side)
    tensors["text"] = torch.nn.functional.normalize(text, dim=-1)
    save_file(tensors, folder / "inputs.safetensors")
    (folder / "model.json").write_text(json.dumps(config))


def cases(plan: Plan) -> list[tuple[int, int, list[str]]]:
    """Layers, prompts and the published package's forms: one form where all are the same."""
    return [
        (layers, prompts, list(FORMS) if prompts > 1 else ["batch"])
        for layers in plan.layers
        for prompts in plan.prompts
    ]


def compare_maps(plan: Plan, ours: Child, theirs: Child, folder: Path) -> float:
    """The largest difference between the final maps, whose range is 1. Warms both sides up too."""

    def maps(child: Child, form: str, layers: int, prompts: int) -> torch.Tensor:
        file = folder / f"{child.side}.safetensors"
        child.ask(form, layers, prompts, measure=str(file))
        return load_file(file)["maps"]

    worst = 0.0
    for layers, prompts, forms in cases(plan):
        expected = maps(ours, "batch", layers, prompts)
        for form in forms:
            difference = expected - maps(theirs, form, layers, prompts)
            worst = max(worst, difference.abs().max().item())
    return worst


def actions(plan: Plan, ours: Child, theirs: Child) -> dict[str, Action]:
    """What is timed, one image each: the bare forward pass, and every case on both sides."""

    def ask(child: Child, form: str, layers: int, prompts: int) -> Action:
        return lambda: child.ask(form, layers, prompts)

    found = {"forward": ask(ours, "forward", plan.layers[0], 1)}
    found["forward"]()
    for layers, prompts, forms in cases(plan):
        found[f"ours {layers} {prompts}"] = ask(ours, "batch", layers, prompts)
        for form in forms:
            found[f"{form} {layers} {prompts}"] = ask(theirs, form, layers, prompts)
    return found


def summary(plan: Plan, measured: dict[str, dict[str, float]]) -> Results:
    """The medians of `actions`, case by case."""
    return {
        "forward": measured["forward"],
        "cases": [
            case(
                layers,
                prompts,
                measured[f"ours {layers} {prompts}"],
                {form: measured[f"{form} {layers} {prompts}"] for form in forms},
            )
            for layers, prompts, forms in cases(plan)
        ],
        "extra_prompt": [
            extra_prompt(
                *(measured[f"ours {layers} {prompts}"]["seconds"] for prompts in plan.prompts),
                more=plan.prompts[1] - plan.prompts[0],
                forward=measured["forward"]["seconds"],
            )
            for layers in plan.layers
        ],
    }


def case(
    layers: int, prompts: int, ours: dict[str, float], forms: dict[str, dict[str, float]]
) -> Results:
    """One case: figures of both sides, and how many times faster ours is than the fastest form.

    `ratio_with_image` is the same without "reuse", which the package allows but does not show.
    """
    fastest = min(forms, key=lambda form: forms[form]["seconds"])
    with_image = min(forms[form]["seconds"] for form in forms if form != "reuse")
    return {
        "layers": layers,
        "prompts": prompts,
        "ours": ours,
        "published": forms,
        "fastest": fastest,
        "ratio": forms[fastest]["seconds"] / ours["seconds"],
        "ratio_with_image": with_image / ours["seconds"],
        "cpu_ratio": min(form["cpu_seconds"] for form in forms.values()) / ours["cpu_seconds"],
    }


def measure_memory(plan: Plan, child: Callable[[str], Child]) -> Results:
    """Resident bytes for a batch, each in a fresh process: the bare forward pass, and ours."""
    layers, prompts = plan.layers[0], plan.prompts[1]
    usage: Results = {}
    for name, form in (("forward", "forward"), ("ours", "batch")):
        with child("ours") as side:
            usage[name] = side.ask(
                form, layers, prompts, images=plan.batch, chunk=plan.chunk, measure="memory"
            )
    forward, ours = usage["forward"], usage["ours"]
    added = {name: usage[name]["peak"] - usage[name]["before"] for name in usage}
    return {
        "images": plan.batch,
        "prompts": prompts,
        "layers": layers,
        "chunk": plan.chunk,
        "bytes": usage,
        "process": (ours["peak"] - plan.chunk) / forward["peak"],
        "added": (added["ours"] - plan.chunk) / added["forward"],
    }


def targets(results: Results) -> list[Target]:
    """What the project promises, beside what was measured: all layers, the package as it shows."""
    found = []
    layers = results["cases"][0]["layers"]
    for row in results["cases"]:
        if row["layers"] == layers:
            what = f"times faster, {layers} layers, {row['prompts']} prompt(s)"
            limit = 1.4 if row["prompts"] == 1 else 4.0
            found.append(Target(what, row["ratio_with_image"], limit, at_least=True))
    for fraction in results["extra_prompt"]:
        found.append(Target("further prompt / forward pass", fraction, 0.5, at_least=False))
    for scope in ("process", "added"):
        what = f"(peak - one chunk) / forward pass's peak, {scope}"
        found.append(Target(what, results["memory"][scope], 1.5, at_least=False))
    return found


def markdown(results: Results) -> str:
    """The results as Markdown."""
    head = ["layers", "prompts", "ours", *FORMS, "ratio", "without reuse", "processor time"]
    rows = [
        [
            f"{row['layers']}",
            f"{row['prompts']}",
            f"{row['ours']['seconds']:.3f}",
            *(
                f"{row['published'][f]['seconds']:.3f}" if f in row["published"] else ""
                for f in FORMS
            ),
            f"{row['ratio']:.2f} ({row['fastest']})",
            f"{row['ratio_with_image']:.2f}",
            f"{row['cpu_ratio']:.2f}",
        ]
        for row in results["cases"]
    ]
    memory = results["memory"]
    usage = [
        [name, *(f"{figures[when] / 2**20:.0f}" for when in ("before", "peak"))]
        for name, figures in memory["bytes"].items()
    ]
    checks = [
        [t["name"], t["target"], f"{t['measured']:.2f}", "yes" if t["met"] else "NO"]
        for t in results["targets"]
    ]
    return "\n\n".join(
        [
            f"Seconds per image, median of {results['rounds']} interleaved rounds in each of "
            f"{results['processes']} pairs of processes, "
            f"{results['threads']} threads, load average {results['load_average']:.1f}. "
            f"A bare forward pass: {results['forward']['seconds']:.3f} s. "
            f"Largest difference of the maps, whose range is 1: {results['agreement']:.1e}.",
            table(head, rows),
            "\n".join(f"- {form}: {meaning}" for form, meaning in FORMS.items()),
            f"Resident MiB, {memory['images']} images, {memory['prompts']} prompts each, "
            f"{memory['layers']} layers, a fresh process each; "
            f"chunk: {memory['chunk'] / 2**20:.0f} MiB.",
            table(["", "before", "peak"], usage),
            table(["target", "", "measured", "met"], checks),
        ]
    )
