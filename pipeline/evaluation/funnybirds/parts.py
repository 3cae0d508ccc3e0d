"""How much of an attribution lies in each part of a bird, and which parts are important by it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from torch import Tensor

from pipeline.evaluation.funnybirds.dataset import PARTS

COLOURS: dict[tuple[int, int, int], str] = {
    (255, 255, 253): "eye",
    (255, 255, 254): "eye",
    (255, 255, 0): "beak",
    (255, 0, 1): "foot",
    (255, 0, 2): "foot",
    (0, 255, 1): "wing",
    (0, 255, 2): "wing",
    (0, 0, 255): "tail",
}
"""Of a part map. What a bird has two of has a colour for each."""
BACKGROUND = 204
"""Object i of the background has the colour (204, 204, 204 + i)."""
MOST_OBJECTS = 50
DILATION = 5
THRESHOLDS: Float64[np.ndarray, " threshold"] = np.linspace(0.01, 0.50, num=80)
"""Parts are important that have more than so much of the whole attribution."""


def part_weights(
    part_map: UInt8[Tensor, "3 height width"], objects: int
) -> Float32[Tensor, "part height width"]:
    """How often a pixel counts for each of `PARTS`, and then for each background object.

    A part is the pixels of its colour, and those at most two rows and columns away. What a bird
    has two of is dilated one by one, so that a pixel near both counts twice.

    Args:
        part_map: colours of the parts.
        objects: in the background; those beyond `MOST_OBJECTS` count for nothing.
    """
    colours = list(COLOURS)
    colours += [(BACKGROUND, BACKGROUND, BACKGROUND + i) for i in range(MOST_OBJECTS)]
    wanted = torch.tensor(colours[: len(COLOURS) + objects], dtype=torch.uint8)
    found = (part_map[None] == wanted[:, :, None, None]).all(1, keepdim=True).float()
    grown = F.max_pool2d(found, DILATION, stride=1, padding=DILATION // 2)[:, 0]
    weights = grown.new_zeros((len(PARTS) + objects, *grown.shape[1:]))
    for position, part in enumerate(COLOURS.values()):
        weights[PARTS.index(part)] += grown[position]
    known = len(grown) - len(COLOURS)
    weights[len(PARTS) : len(PARTS) + known] = grown[len(COLOURS) :]
    return weights


def importances(
    attributions: Float[Tensor, "map height width"],
    weights: Float32[Tensor, "part height width"],
) -> Float64[np.ndarray, "map part"]:
    """The sum of each attribution over each part."""
    flat = attributions.double().flatten(1)
    found: np.ndarray = (flat @ weights.double().flatten(1).T).numpy()
    return found


def important(
    importance: Float64[np.ndarray, " part"], total: float
) -> Bool[np.ndarray, "threshold part"]:
    """Which parts have more than each of `THRESHOLDS` of the whole attribution.

    Args:
        importance: of the parts.
        total: sum of the attribution over the image. Where it is below 0, so are the bounds.
    """
    return importance[None] > (THRESHOLDS * total)[:, None]
