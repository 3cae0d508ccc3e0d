"""How fast a GPU explains images: by what was measured, or at most, by what a model multiplies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import open_clip

from pipeline.config import DEMO_MODEL, AnnotateConfig, ModelConfig
from pipeline.models import demo, imagebind
from pipeline.models.operations import Shape


@dataclass(frozen=True)
class Measured:
    """A row of `python benchmarks/run.py gpu`: bfloat16, all layers, from images to heatmaps."""

    gpu: str
    model: str
    prompts: int
    images_per_second: float


H100 = "NVIDIA H100 80GB HBM3"
MEASURED = (
    Measured(H100, "ViT-B-16", 1, 3427.0),
    Measured(H100, "ViT-B-16", 5, 1674.0),
    Measured(H100, "ViT-bigG-14", 1, 211.0),
    Measured(H100, "ViT-bigG-14", 5, 105.0),
)
"""As docs/performance.md has them; a test compares."""
HALF, SINGLE = ("bfloat16", "float16"), "float32"
PEAKS: Mapping[str, tuple[float, float]] = {
    "H100": (989.4e12, 67e12),
    "H200": (989.4e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362.05e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "V100": (125e12, 15.7e12),
    "T4": (65e12, 8.1e12),
}
"""Operations per second by the makers' data sheets, of the fastest form of each: 16-bit matrices
without sparsity, and float32 without TF32, which PyTorch does not use unless it is told to."""


@dataclass(frozen=True)
class Pace:
    """Images per second of one GPU.

    Attributes:
        images_per_second: of maps alone: reading, decoding and masks are to be done meanwhile.
        prompts: of each image.
        source: where the figure is from, for people.
        bound: whether it is the most there could be, and not measured.
    """

    images_per_second: float
    prompts: int
    source: str
    bound: bool

    def hours(self, images: int | float) -> float:
        """That one GPU takes for so many images."""
        return images / self.images_per_second / 3600


def paces(config: AnnotateConfig, gpu: str) -> list[Pace] | str:
    """What is known of the speed of a run on a GPU; or, in words, why nothing is.

    Args:
        config: of the run.
        gpu: its name, or as much of it as tells it from others; empty where nobody has said.
    """
    if not gpu:
        return "no GPU is named: --engine.gpu H100 would reckon with one"
    model, words = config.model, _words(gpu)
    chip = next((name for name in PEAKS if name in words), "")
    if chip and _as_measured(config):
        rows = [r for r in MEASURED if r.model == model.name and words <= _words(r.gpu)]
        if rows:
            about = f"measured: {rows[0].gpu}, {model.name}, {model.precision}"
            return [Pace(row.images_per_second, row.prompts, about, False) for row in rows]
    if not chip:
        return f"nothing is known of --engine.gpu {gpu}; known are {', '.join(PEAKS)}"
    shape = _shape(model)
    if shape is None:
        return f"nothing is known of the size of {model.name}"
    whole = _is_closed_form(config)
    operations = shape.closed_form(1) if whole else shape.forward()
    what = "its matrix products" if whole else "those of the forward pass alone"
    half, single = PEAKS[chip]
    rate = half if model.precision in HALF else single
    about = f"bound: {what}, {operations / 1e9:,.0f} GFLOP, at {rate / 1e12:,.4g} TFLOP/s"
    return [Pace(rate / operations, 1, about, True)]


def _words(gpu: str) -> set[str]:
    return set(re.split(r"[\s_-]+", gpu.upper())) - {""}


def _is_closed_form(config: AnnotateConfig) -> bool:
    """Whether it does what the benchmark counts: LeGrad over all layers of one view."""
    is_legrad = config.method == "legrad" and config.algorithm == "closed_form"
    return is_legrad and config.layers is None and config.views.plain


def _as_measured(config: AnnotateConfig) -> bool:
    model = config.model
    return (
        _is_closed_form(config)
        and not config.options
        and model.precision == "bfloat16"
        and model.image_size is None
    )


def _shape(model: ModelConfig) -> Shape | None:
    """The sizes of a tower that open_clip has a config of, and that is a plain transformer."""
    if model.in_place:
        return None  # its config may have to be fetched
    if model.name == DEMO_MODEL:
        demo.register()
    imagebind.register()
    config = open_clip.get_model_config(model.name)
    vision = (config or {}).get("vision_cfg", {})
    if not isinstance(vision.get("layers"), int) or "timm_model_name" in vision:
        return None
    size = {} if model.image_size is None else {"image_size": model.image_size}
    return Shape.of({"vision_cfg": vision | size})
