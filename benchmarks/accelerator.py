"""LeGrad on one accelerator: images per second, and what share of its matrix peak that is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

import legrad
from benchmarks.timing import table
from pipeline.models.operations import Shape

Results = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model of random weights and the number of images per call."""

    name: str
    config: dict[str, Any]
    batch: int


def standard_cases() -> list[Case]:
    """The two models the project gives figures for."""
    sizes = {"ViT-B-16": 256, "ViT-bigG-14": 64}
    return [Case(name, open_clip.get_model_config(name), batch) for name, batch in sizes.items()]


def measure(
    device: torch.device,
    dtype: torch.dtype,
    *,
    memory_budget: int,
    cases: Sequence[Case] | None = None,
    prompts: Sequence[int] = (1, 5),
    matrix: int = 8192,
    seconds: float = 6.0,
    say: Callable[[str], None] = print,
) -> Results:
    """Every figure of the benchmark.

    Args:
        device: where to run.
        dtype: of weights, images and the matrix product.
        memory_budget: bytes for the temporaries of one chunk.
        cases: the models; `standard_cases` by default.
        prompts: how many prompts each image has, a measurement each.
        matrix: side of the square matrices whose product gives the peak.
        seconds: about how long each measurement may repeat.
        say: gets a line per step.
    """
    peak = matrix_peak(device, dtype, matrix, seconds)
    say(f"{device_name(device)}: {peak / 1e12:.3g} TFLOP/s, {matrix}³ product, {dtype}")
    rows = []
    for case in standard_cases() if cases is None else cases:
        model = random_tower(case.config, device, dtype)
        shape = Shape.of(case.config)
        side = shape.image
        images = torch.randn(case.batch, 3, side, side, device=device, dtype=dtype)
        explainer = legrad.build("legrad", model, memory_budget=memory_budget)
        for count in (None, *prompts):
            run = forward(model, images) if count is None else maps(explainer, images, count, case)
            operations = shape.forward() if count is None else shape.closed_form(count)
            took, memory = repeat(run, device, seconds)
            rows.append(row(case, count, took, memory, operations * case.batch / peak))
            rate = rows[-1]["images_per_second"]
            say(f"{case.name}, {count or 'no'} prompts: {rate:.3g} images/s")
        del model, explainer, run
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "dtype": str(dtype),
        "peak": peak,
        "memory_budget": memory_budget,
        "rows": rows,
    }


def row(
    case: Case, prompts: int | None, seconds: float, memory: int | None, ideal: float
) -> Results:
    """One measurement; `ideal` is the time that the counted operations take at the peak."""
    return {
        "model": case.name,
        "batch": case.batch,
        "prompts": prompts,
        "seconds": seconds,
        "images_per_second": case.batch / seconds,
        "ms_per_map": None if prompts is None else 1000 * seconds / case.batch / prompts,
        "of_peak": ideal / seconds,
        "peak_memory": memory,
    }


def forward(model: CLIP, images: torch.Tensor) -> Callable[[], object]:
    """The bare image encoder."""
    run: Callable[[], object] = torch.no_grad()(lambda: model.visual(images))
    return run


def maps(
    explainer: legrad.Explainer, images: torch.Tensor, prompts: int, case: Case
) -> Callable[[], object]:
    """From images and text embeddings to heatmaps of the images' size, in one call."""
    text = torch.randn(len(images) * prompts, case.config["embed_dim"], device=images.device)
    text = nn.functional.normalize(text, dim=-1)
    index = torch.arange(len(images), device=images.device).repeat_interleave(prompts)
    size = (images.shape[2], images.shape[3])
    return lambda: legrad.heatmap(explainer(images, text, index), size)


def random_tower(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> CLIP:
    """A CLIP of this config with a token text tower, its weights drawn where they will be used."""
    with torch.device("meta"):
        model = CLIP(
            config["embed_dim"],
            CLIPVisionCfg(**config["vision_cfg"]),
            CLIPTextCfg(context_length=4, vocab_size=16, width=64, heads=1, layers=1),
            quick_gelu=config.get("quick_gelu", False),
        )
    model = model.to(dtype).to_empty(device=device).eval()
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.zero_()
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=1 / math.sqrt(parameter[0].numel()))
            else:
                parameter.fill_(0 if name.endswith("bias") else 1)
    return model


def matrix_peak(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    """Operations per second of a large matrix product of random numbers."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    took, _ = repeat(lambda: torch.mm(left, right, out=out), device, seconds)
    return 2 * size**3 / took


def repeat(
    run: Callable[[], object], device: torch.device, seconds: float
) -> tuple[float, int | None]:
    """Median seconds per run, and the most bytes that were allocated (None on a CPU).

    Three to fifty timed runs, after one that is not counted.
    """
    is_cuda = device.type == "cuda"

    def once() -> float:
        start = time.perf_counter()
        run()
        if is_cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    if is_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    once()
    first = once()
    times = [first] + [once() for _ in range(min(49, max(2, int(seconds / first) - 1)))]
    return median(times), torch.cuda.max_memory_allocated(device) if is_cuda else None


def device_name(device: torch.device) -> str:
    """What to call the device in a report."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def markdown(results: Results) -> str:
    """The results as Markdown."""
    rows = [
        [
            r["model"],
            f"{r['batch']}",
            "forward only" if r["prompts"] is None else f"{r['prompts']}",
            f"{r['images_per_second']:.4g}",
            "" if r["ms_per_map"] is None else f"{r['ms_per_map']:.3f}",
            f"{100 * r['of_peak']:.0f} %",
            "" if r["peak_memory"] is None else f"{r['peak_memory'] / 2**30:.2f}",
        ]
        for r in results["rows"]
    ]
    head = ["model", "batch", "prompts", "images/s", "ms/map", "of peak", "peak GiB"]
    about = (
        f"{results['device']}, PyTorch {results['torch']}, {results['dtype']}, random weights, all "
        f"layers, chunks of {results['memory_budget'] / 2**20:.0f} MiB; to heatmaps of the images' "
        f"size. Measured matrix peak: {results['peak'] / 1e12:.3g} TFLOP/s; the share counts the "
        "matrix products of the closed form only."
    )
    return f"{about}\n\n{table(head, rows)}"
