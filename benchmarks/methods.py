"""Every method's speed: as published, and as this project computes it.

The protocol of LeGrad's paper (arXiv 2404.03214, table 4) is ViT-B/16, one image of 224², one
text: forward pass, map, upsampling, normalisation. Annotation asks for several texts per image.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import legrad
from benchmarks.published import loops
from benchmarks.published.child import Child
from benchmarks.published.plan import VIT_B_16, Plan, write_inputs
from benchmarks.published.side import Ours
from benchmarks.timing import Action, Figures, Target, interleaved, table, target_table
from legrad.baselines import BASELINES

Results = dict[str, Any]

PROMPTS, BATCH = 5, 8
FORMS: dict[str, tuple[str, int | None]] = {
    "legrad": ("legrad", None),
    "legrad, last 2": ("legrad", 2),
    **{name: (name, None) for name in BASELINES},
}


def compare(
    published: str, rounds: int, batch_rounds: int, config: dict[str, Any] = VIT_B_16
) -> Results:
    """Seconds of every method, by both ways, for one pair and for a batch.

    On one thread, in processor time: on an idle machine that is the time of the clock, and on a
    busy one it is still about the same.

    Args:
        published: the interpreter of the authors' package.
        rounds: how often one pair is measured, in turns, after a run that is not counted.
        batch_rounds: how often the batch is, which takes minutes and is warm by then.
        config: an open_clip model config.
    """
    torch.set_num_threads(1)
    depth = config["vision_cfg"]["layers"]
    plan = Plan(config, (depth, 2), (1, PROMPTS), rounds, threads=1, batch=BATCH)
    with tempfile.TemporaryDirectory() as name:
        write_inputs(plan, Path(name))
        side = Ours(Path(name), legrad)
        with Child("published", published, Path(name), threads=1) as theirs:
            packaged: dict[str, Action] = {
                "legrad": lambda: theirs.ask("batch", depth, 1),
                "legrad, last 2": lambda: theirs.ask("batch", 2, 1),
            }
            baselines = {
                name: _timed(_heated(run, side.images[:1], side.text[:1]))
                for name, run in loops.runs(side.model).items()
            }
            single = _measure({**packaged, **baselines}, "as published, one pair", rounds)
    one = _measure(_best(side, 1, 1), "here, one pair", rounds)
    many = _measure(
        _best(side, BATCH, PROMPTS), f"here, {BATCH} x {PROMPTS}", batch_rounds, warm=True
    )
    results: Results = {
        "rounds": rounds,
        "batch_rounds": batch_rounds,
        "load_average": os.getloadavg()[0],
        "published": single,
        "here": one,
        "annotation": many,
    }
    return results | {"targets": [target.as_dict() for target in targets(results)]}


def _best(side: Ours, images: int, prompts: int) -> dict[str, Action]:
    batch, index = side.images[:images], torch.arange(images).repeat_interleave(prompts)
    text = side.text[:prompts].repeat(images, 1)
    actions: dict[str, Action] = {
        "forward": _timed(torch.no_grad()(lambda: side.model.visual(batch)))
    }
    for name, (method, layers) in FORMS.items():
        explainer = legrad.build(method, side.model, layers)

        def run(images: Tensor, text: Tensor, of: legrad.Explainer = explainer) -> Tensor:
            return of(images, text, index)

        actions[name] = _timed(_heated(run, batch, text, explainer.heat_order))
    return actions


def _heated(
    run: loops.Run,
    images: Tensor,
    text: Tensor,
    order: legrad.HeatOrder = legrad.HeatOrder.UPSAMPLE_NORMALISE,
) -> Callable[[], Tensor]:
    height, width = images.shape[2:]
    return lambda: legrad.heatmap(run(images, text).detach(), (height, width), order=order)


def _timed(run: Callable[[], Tensor]) -> Action:
    def measure() -> Figures:
        start = time.process_time()
        run()
        return {"cpu_seconds": time.process_time() - start}

    return measure


def _measure(
    actions: Mapping[str, Action], what: str, rounds: int, *, warm: bool = False
) -> dict[str, float]:
    print(f"{what} ...", file=sys.stderr, flush=True)
    for action in () if warm else actions.values():
        action()
    told = {name: _told(name, action) for name, action in actions.items()}
    return {name: figures["cpu_seconds"] for name, figures in interleaved(told, rounds).items()}


def _told(name: str, action: Action) -> Action:
    """The same action, which also says what it measured: some take minutes."""

    def measure() -> Figures:
        figures = action()
        print(f"  {name}: {figures['cpu_seconds']:.3f} s", file=sys.stderr, flush=True)
        return figures

    return measure


def targets(results: Results) -> list[Target]:
    """What the project promises, beside what was measured."""
    published, many = results["published"], results["annotation"]
    ours = results["here"]["legrad"]

    def times(name: str, least: float) -> Target:
        what = f"{name} as published / LeGrad here, one pair"
        return Target(what, published[name] / ours, least, at_least=True)

    return [
        Target("LeGrad here / GradCAM as published, one pair", ours / published["gradcam"], 1.18,
               at_least=False),
        times("chefer_cam", 3.0),
        times("lrp", 15.0),
        times("text_span", 15.0),
        Target(f"LeGrad / GradCAM, both here, {BATCH} x {PROMPTS}",
               many["legrad"] / many["gradcam"], 1.5, at_least=False),
    ]  # fmt: skip


def markdown(results: Results) -> str:
    """The results as Markdown."""
    published, here, many = (results[key] for key in ("published", "here", "annotation"))
    rows = [
        [
            name,
            *_column(published[name], published["gradcam"]),
            *_column(here[name], here["gradcam"]),
            f"{BATCH * PROMPTS * published[name]:.2f}",
            *_column(many[name], many["gradcam"]),
        ]
        for name in FORMS
    ]
    header = [
        "method",
        "as published, one pair (s)", "/ GradCAM",
        "here, one pair (s)", "/ GradCAM",
        f"as published, {BATCH} x {PROMPTS} (s)",
        f"here, {BATCH} x {PROMPTS} (s)", "/ GradCAM",
    ]  # fmt: skip
    return "\n\n".join(
        [
            "ViT-B/16 with random weights, 224², float32: from images and text embeddings to "
            "normalised heatmaps. Processor time of one thread; median of "
            f"{results['rounds']} interleaved rounds for one pair, {results['batch_rounds']} for "
            f"the batch; load average {results['load_average']:.1f}. A bare forward pass takes "
            f"{here['forward']:.3f} s for one image, {many['forward']:.2f} s for {BATCH}. "
            f"{BATCH} x {PROMPTS} is {BATCH} images with {PROMPTS} texts each; as published that "
            "is a loop over the pairs, so its time is that of one pair times "
            f"{BATCH * PROMPTS}.",
            table(header, rows),
            target_table(results["targets"]),
        ]
    )


def _column(seconds: float, gradcam: float) -> list[str]:
    return [f"{seconds:.3f}", f"{seconds / gradcam:.2f}"]
