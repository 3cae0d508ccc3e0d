"""Rotary positions of timm's transformers: queries and keys turned by their place on the grid.

RoPE (Su et al., arXiv 2104.09864) over rows and columns, as the Perception Encoder (arXiv
2504.13181), RoPE-ViT (arXiv 2403.13298) and DINOv3 (arXiv 2508.10104) have it. Values are not
turned, so that gradients of the attention weights take no notice of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    apply_rot_embed_cat,
)
from torch import Tensor

from legrad.errors import UnsupportedModelError
from legrad.towers.block import Rotation

KNOWN = (RotaryEmbeddingCat, RotaryEmbeddingMixed, RotaryEmbeddingDinoV3)


def read(trunk: Any, name: str) -> Callable[[tuple[int, int]], Sequence[Rotation]] | None:
    """The rotations of the blocks of a timm trunk, for any grid; None without rotary positions.

    Raises:
        UnsupportedModelError: they are of another kind than `KNOWN`.
    """
    rope = getattr(trunk, "rope", None)
    if rope is None:
        return None
    if type(rope) not in KNOWN:
        raise UnsupportedModelError(
            f"{name} with rotary positions {type(rope).__name__}",
            f"known are {', '.join(kind.__name__ for kind in KNOWN)}",
        )

    def rotations(grid: tuple[int, int]) -> list[Rotation]:
        turns = _turns(rope, grid)
        each = turns if isinstance(rope, RotaryEmbeddingMixed) else [turns] * len(trunk.blocks)
        return [
            partial(
                _rotated,
                turns=turn,
                prefix=block.attn.num_prefix_tokens,
                half=block.attn.rotate_half,
            )
            for block, turn in zip(trunk.blocks, each, strict=True)
        ]

    return rotations


def unplaced(x: Tensor) -> Tensor:
    """Stands in a rotary block until it is put on a grid.

    Raises:
        RuntimeError: always; such a block would attend as if it had no positions.
    """
    raise RuntimeError("a block with rotary positions is used without them: take Tower.blocks_on")


def _turns(rope: Any, grid: tuple[int, int]) -> Float[Tensor, "*blocks n angles"]:
    """Sines and cosines of every patch, as the trunk has them once it is resized to `grid`.

    timm resizes them in place, and moves them at random in training: hence a copy, in eval mode.
    """
    resized = copy.deepcopy(rope).eval()
    resized.update_feat_shape(grid)  # of no effect where they are made for every image anew
    turns: Tensor = resized.get_embed(shape=grid if resized.feat_shape is None else None)
    return turns


def _rotated(
    x: Float[Tensor, "B h N d_h"], *, turns: Float[Tensor, "*h n angles"], prefix: int, half: bool
) -> Float[Tensor, "B h N d_h"]:
    """`x` with its patch tokens turned; prefix tokens have no place."""
    patches = apply_rot_embed_cat(x[:, :, prefix:], turns, half=half)
    return torch.cat([x[:, :, :prefix], patches], dim=2)
