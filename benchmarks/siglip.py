"""What many prompts per image cost with SigLIP, whose attention pooler makes them nearly free.

Everything that a text has to do with comes after the pooler's attention, so that the tower runs
once, and each further text costs a few vectors per block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import Tensor

import legrad
from benchmarks.published.side import timed
from benchmarks.timing import Target, interleaved, table, target_table

Results = dict[str, Any]

MODEL = "ViT-B-16-SigLIP"
PROMPTS = (1, 10, 100)
BATCHES = (1, 8)
LIMIT = 1.3
"""Times the cost of one prompt per image that the most prompts may cost."""


def random_tower() -> TimmModel:
    """The image tower of `MODEL` with random weights."""
    config = open_clip.get_model_config(MODEL)
    vision = config["vision_cfg"]
    torch.manual_seed(0)
    tower: TimmModel = TimmModel(
        vision["timm_model_name"],
        embed_dim=config["embed_dim"],
        image_size=vision["image_size"],
        pool=vision["timm_pool"],
        proj=vision["timm_proj"],
    ).eval()
    return tower


def measure(tower: TimmModel, side: int, rounds: int) -> Results:
    """Processor seconds of LeGrad over all layers, on one thread.

    Args:
        tower: whose images are explained; it is left as it is.
        side: of its images, in pixels.
        rounds: how often each case is measured, in turns, after a run that is not counted.
    """
    torch.set_num_threads(1)
    explainer = legrad.build("legrad", tower)
    images = torch.randn(max(BATCHES), 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        width = tower(images[:1]).shape[1]
    actions = {
        (batch, prompts, pixels): _action(explainer, images[:batch], width, prompts, pixels)
        for batch in BATCHES
        for prompts in PROMPTS
        for pixels in (False, True)
    }
    for action in actions.values():
        action()
    measured = interleaved({str(case): action for case, action in actions.items()}, rounds)
    rows = [
        {
            "images": batch,
            "prompts": prompts,
            "maps": measured[str((batch, prompts, False))]["cpu_seconds"],
            "heatmaps": measured[str((batch, prompts, True))]["cpu_seconds"],
        }
        for batch in BATCHES
        for prompts in PROMPTS
    ]
    return {
        "side": side,
        "rounds": rounds,
        "load_average": os.getloadavg()[0],
        "rows": rows,
        "targets": [target.as_dict() for target in targets(rows)],
    }


def _action(
    explainer: legrad.Explainer, images: Tensor, width: int, prompts: int, pixels: bool
) -> Callable[[], Mapping[str, float]]:
    """From images and text embeddings to maps, on the patch grid or as pixels in 0..1."""
    text = F.normalize(torch.randn(len(images) * prompts, width), dim=1)
    index = torch.arange(len(images)).repeat_interleave(prompts)
    size = (images.shape[2], images.shape[3])

    def run() -> Tensor:
        raw = explainer(images, text, index)
        return legrad.heatmap(raw, size, order=explainer.heat_order) if pixels else raw

    return lambda: timed(run)


def targets(rows: list[dict[str, float]]) -> list[Target]:
    """The most prompts against one, for every batch, as maps and as pixels."""
    most = max(PROMPTS)
    found = []
    for batch in BATCHES:
        of = {row["prompts"]: row for row in rows if row["images"] == batch}
        for what in ("maps", "heatmaps"):
            name = f"{most} prompts per image / 1 prompt, {batch} images, {what}"
            found.append(Target(name, of[most][what] / of[1][what], LIMIT, at_least=False))
    return found


def markdown(results: Results) -> str:
    """The results as Markdown."""
    cells = []
    for row in results["rows"]:
        one = next(r for r in results["rows"] if (r["images"], r["prompts"]) == (row["images"], 1))
        cells.append([str(row["images"]), str(row["prompts"])])
        for what in ("maps", "heatmaps"):
            cells[-1] += [f"{row[what]:.3f}", f"{row[what] / one[what]:.2f}"]
    header = [
        "images", "prompts per image", "maps (s)", "/ 1 prompt", "heatmaps (s)", "/ 1 prompt",
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"{MODEL} with random weights, {results['side']}², float32, LeGrad over all layers: "
            "from images and text embeddings to maps on the patch grid, and on to normalised "
            "heatmaps of the image's size. Processor time of one thread; median of "
            f"{results['rounds']} interleaved rounds; load average {results['load_average']:.1f}.",
            table(header, cells),
            target_table(results["targets"]),
        ]
    )
