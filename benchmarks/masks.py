"""From raw maps to run lengths: in closed form against the heat of every pixel, on one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.timing import Action, interleaved, table
from pipeline.config import MaskConfig
from pipeline.outputs.closed_form.level_sets import level_sets
from pipeline.outputs.closed_form.winners import winners
from pipeline.outputs.masks import encode_masks
from pipeline.outputs.raster import rasters

Results = dict[str, Any]
SIZES = ((480, 640), (3000, 4000))
WAYS: dict[str, tuple[Callable[..., Any], MaskConfig]] = {
    "closed form": (level_sets, MaskConfig()),
    "every pixel": (rasters, MaskConfig()),
    "winner": (winners, MaskConfig(overlap="winner")),
}


def measure(
    maps: int, rounds: int, sizes: Sequence[tuple[int, int]] = SIZES, grid: int = 16
) -> Results:
    """Milliseconds per mask.

    Args:
        maps: of one image, made into masks together.
        rounds: how often each way is measured, in turns.
        sizes: (height, width) of the images.
        grid: side of the maps.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(maps, 1, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (grid, grid), mode="bicubic")[:, 0]
    rows = []
    for height, width in sizes:
        actions = {name: _action(*way, smooth, height, width) for name, way in WAYS.items()}
        for action in actions.values():
            action()
        took = interleaved(actions, rounds)
        rows.append({"size": [width, height], **{name: took[name]["ms"] for name in WAYS}})
    return {"maps": maps, "grid": grid, "rows": rows}


def _action(
    make: Callable[..., Any], config: MaskConfig, raw: torch.Tensor, height: int, width: int
) -> Action:
    def run() -> dict[str, float]:
        started = time.perf_counter()
        for part in make(raw, height, width, [None] * len(raw), config):
            encode_masks(part, 0.0)
        return {"ms": 1000 * (time.perf_counter() - started) / len(raw)}

    return run


def markdown(results: Results) -> str:
    """The results as Markdown."""
    rows = [
        [
            f"{row['size'][0]} x {row['size'][1]}",
            *(f"{row[name]:.2f} ms" for name in WAYS),
            f"{row['every pixel'] / row['closed form']:.1f}",
            f"{row['winner'] / row['closed form']:.2f}",
        ]
        for row in results["rows"]
    ]
    header = ["image", *WAYS, "every pixel / closed form", "winner / closed form"]
    about = (
        f"{results['maps']} maps of {results['grid']} x {results['grid']} at a time, one core; per "
        "mask, from map to string; winner: in closed form, the maps competing for every pixel"
    )
    return f"{about}\n\n{table(header, rows)}"
