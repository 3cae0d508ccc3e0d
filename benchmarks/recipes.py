"""What presets cost: passes of the model, time and memory on the demo; refinement by itself."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Literal

import torch
from jaxtyping import Float32
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from benchmarks.memory import peak_bytes
from benchmarks.timing import Action, at_least_one, interleaved, table
from legrad import HeatOrder
from pipeline.config import AnnotateConfig, ExecutionConfig, MaskConfig, PromptConfig
from pipeline.config.presets import PRESETS, expand
from pipeline.demo.bench import Bench
from pipeline.demo.bundle import key_of
from pipeline.demo.mask_scores import Truth
from pipeline.demo.quality import bundled_scenes
from pipeline.inputs.images import Picture
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.samples import Guide
from pipeline.inputs.shards import find_shards
from pipeline.models.demo import ASSETS
from pipeline.models.explain import PromptExplainer
from pipeline.outputs.refinement.guides import completed, guide_of
from pipeline.outputs.refinement.refine import refined_heat

Results = dict[str, Any]

KINDS: tuple[Literal["pamr", "regions", "regions_pamr"], ...] = ("pamr", "regions", "regions_pamr")
SIZES = ((224, 224), (480, 640))
MAPS, GRID = 5, 14


def measure(images: int, rounds: int, sizes: Sequence[tuple[int, int]] = SIZES) -> Results:
    """Every preset in a fresh interpreter, and every refinement; one thread.

    Args:
        images: of the demo, that each preset annotates after as many that are not counted.
        rounds: how often refinements are measured, in turns.
        sizes: (height, width) of the images that are refined, which is done at their own size.
    """
    at_least_one(images=images, rounds=rounds)
    torch.set_num_threads(1)
    presets = {name: _alone(_annotate, name, images) for name in PRESETS}
    return {
        "images": images,
        "presets": presets,
        "refinements": [row for size in sizes for row in _refinements(size, rounds)],
    }


def _alone(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What some work measures in a fresh interpreter, and its peak of memory beside that."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_peak, (work, *arguments))


def _with_peak(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    torch.set_num_threads(1)
    figures = work(*arguments)
    return figures | {"peak_bytes": float(peak_bytes())}


def _annotate(preset: str, images: int) -> dict[str, float]:
    """Milliseconds an image of the demo with its three prompts or so, by stage."""
    config = expand(
        preset,
        AnnotateConfig,
        limit_samples=images,
        engine=ExecutionConfig(executor="local", device="cpu", threads=1),
        prompts=PromptConfig(classes=str(ASSETS / "classes.yaml")),
    )
    truths = {key_of(i): Truth(scene.masks) for i, scene in enumerate(bundled_scenes())}
    prompts_of, explain = PromptReader(config.prompts), PromptExplainer(config)
    benches = [
        Bench(
            config,
            explain,
            find_shards([str(shard)]),
            lambda raw: prompts_of(raw.fields),
            truths.__getitem__,
        )
        for shard in sorted((ASSETS / "shards").glob("*.tar"))[:2]
    ]
    benches[0].annotate()
    seconds = benches[1].annotate().seconds
    views = config.views
    passes = views.shifts * (1 + views.flip) * len(views.scales)
    return {"passes": passes} | {name: 1000 * value for name, value in seconds.items()}


def _refinements(size: tuple[int, int], rounds: int) -> list[dict[str, Any]]:
    """What each refinement takes of an image, of its first map and of each further one."""
    configs = {kind: MaskConfig(refine=kind, refine_size=max(size)) for kind in KINDS}
    picture, raw = _image(size), _maps()
    actions: dict[str, Action] = {}
    for kind, config in configs.items():
        guide = _guide(picture, config)
        steps = {"guide": partial(_guide, picture, config)} | {
            count: partial(refined_heat, raw[:maps], guide, config, HeatOrder.UPSAMPLE_NORMALISE)
            for count, maps in (("one", 1), ("all", MAPS))
        }
        for step, run in steps.items():
            actions[f"{kind} {step}"] = _timed(run)
    took = interleaved(actions, rounds)
    least = _alone(_refine_once, "none", size)["peak_bytes"]
    rows = []
    for kind in KINDS:
        once, one, every = (took[f"{kind} {step}"]["ms"] for step in ("guide", "one", "all"))
        rows.append(
            {
                "refine": kind,
                "size": [size[1], size[0]],
                "guide_ms": once,
                "first_ms": one,
                "further_ms": (every - one) / (MAPS - 1),
                "bytes": _alone(_refine_once, kind, size)["peak_bytes"] - least,
            }
        )
    return rows


def _refine_once(kind: Any, size: tuple[int, int]) -> dict[str, float]:
    config = MaskConfig(refine=kind, refine_size=max(size))
    picture, raw = _image(size), _maps()
    refined_heat(raw, _guide(picture, config), config, HeatOrder.UPSAMPLE_NORMALISE)
    return {}


def _guide(picture: Picture, config: MaskConfig) -> Guide:
    return completed(guide_of(picture, config), config)


def _timed(run: Callable[[], object]) -> Action:
    run()

    def measure() -> dict[str, float]:
        started = time.process_time()
        run()
        return {"ms": 1000 * (time.process_time() - started)}

    return measure


def _image(size: tuple[int, int]) -> Picture:
    """Patches of colour with noise on them, decoded already."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    patches = torch.nn.functional.interpolate(coarse, size, mode="nearest")[0]
    noise = torch.randn(patches.shape, generator=generator)
    pixels, encoded = (255 * patches + 6 * noise).round().clamp(0, 255), BytesIO()
    to_pil_image(pixels.to(torch.uint8)).save(encoded, "PNG")
    picture = Picture(encoded.getvalue(), size[0] * size[1])
    picture.pixels()
    return picture


def _maps() -> Float32[Tensor, "map rows columns"]:
    coarse = torch.rand(MAPS, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (GRID, GRID), mode="bicubic")[:, 0]


def markdown(results: Results) -> str:
    """The results as Markdown."""
    paper = results["presets"]["paper"]
    presets = [
        [
            f"`{name}`",
            f"{row['passes']:.0f}",
            f"{row['model']:.1f}",
            f"{row['mask']:.1f}",
            f"{(row['model'] + row['mask']) / (paper['model'] + paper['mask']):.1f}",
            f"{row['peak_bytes'] / 1e9:.2f} GB",
        ]
        for name, row in results["presets"].items()
    ]
    refinements = [
        [
            f"`{row['refine']}`",
            f"{row['size'][0]} x {row['size'][1]}",
            f"{row['guide_ms']:.0f}",
            f"{row['first_ms']:.0f}",
            f"{row['further_ms']:.0f}",
            f"{max(row['bytes'], 0) / 1e6:.0f} MB",
        ]
        for row in results["refinements"]
    ]
    per_image = ["preset", "passes", "model, ms", "masks, ms", "all, over `paper`", "peak memory"]
    per_map = [
        "`--mask.refine`",
        "image",
        "once, ms",
        "first map, ms",
        "each further, ms",
        "memory",
    ]
    return "\n\n".join(
        [
            f"The demo's CLIP on {results['images']} of its scenes, 160 x 160 with three prompts, "
            "each preset in a process of its own on one thread; an image:",
            table(per_image, presets),
            "Refinement alone, of a synthetic image at its own size; processor time of one "
            f"thread, and what {MAPS} maps take of memory beyond the process without it:",
            table(per_map, refinements),
        ]
    )
