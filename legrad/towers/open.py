"""Which reader reads a model."""

from __future__ import annotations

from torch import nn

from legrad.errors import UnsupportedModelError
from legrad.towers import open_clip, timm
from legrad.towers.tower import Tower


def open_tower(model: nn.Module) -> Tower:
    """The image tower of `model`.

    Args:
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, their image tower, or a timm
            transformer, in float32, bfloat16, float16 or float64.

    Raises:
        UnsupportedModelError: it has blocks or a pooling that are not treated here.
    """
    visual = getattr(model, "visual", model)
    tower = open_clip.read(visual) or timm.read(visual)
    if tower is not None:
        return tower
    raise UnsupportedModelError(
        f"image tower {type(visual).__name__}", "it is not a transformer over patch tokens"
    )
