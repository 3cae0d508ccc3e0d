"""An image encoder as an explainer needs it: tokens in, blocks, and how a score is read off them.

`open.py` finds out what a model is, `open_clip.py` and `timm.py` read it. Everything that cannot be
treated exactly is refused when the explainer is built, with the reason: a wrong map looks as
plausible as a right one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from legrad.arguments import check_floats
from legrad.heatmap import HeatOrder
from legrad.towers.block import Block, Rotation, wide_type
from legrad.towers.head import Pooler, ScoreHead


@dataclass(frozen=True)
class Tower:
    """The parts of an image encoder, by reference: the model is only ever read.

    Its training flag is ignored (eval semantics always). Tokens are prefix tokens (CLS, registers)
    first, then patches row-major (height outer).

    Attributes:
        conv: the patch embedding.
        prefix: CLS and registers, each [*, D] with any leading dimensions.
        positions: positional embedding [Ns, D]; its last rows belong to the native grid, those
            before them to the first prefix tokens; None for none.
        native: patch rows and columns that `positions` was made for.
        norm_pre: what is applied to the tokens before the first block.
        blocks: the transformer. Tokens go through those of `blocks_on`.
        pooler: the attention pooler that the score is read through; None for CLS or average.
        average: whether the model pools by the mean of the patch tokens.
        head: from the pooled token to the embedding.
        rotations: what turns the queries and keys of each block on a grid of patch rows and columns
            (rotary positions); None for none.
    """

    conv: nn.Conv2d
    prefix: tuple[Tensor, ...]
    positions: Float[Tensor, "Ns D"] | None
    native: tuple[int, int]
    norm_pre: nn.Module
    blocks: tuple[Block, ...]
    pooler: Pooler | None
    average: bool
    head: ScoreHead
    rotations: Callable[[tuple[int, int]], Sequence[Rotation]] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of the residual stream and of the large matrices."""
        return self.conv.weight.dtype

    @property
    def wide(self) -> torch.dtype:
        """The type for statistics and sums: float32, or float64 for a float64 model."""
        return wide_type(self.dtype)

    @property
    def prefix_count(self) -> int:
        """How many tokens come before the patches."""
        return sum(token.numel() // token.shape[-1] for token in self.prefix)

    @property
    def is_siglip(self) -> bool:
        """Whether the tower pools as SigLIP does: attention, then a residual MLP."""
        return self.pooler is not None and self.pooler.tail is not None

    @property
    def heat_order(self) -> HeatOrder:
        """SigLIP's maps are normalised before they are upsampled (the authors' package)."""
        return HeatOrder.NORMALISE_UPSAMPLE if self.is_siglip else HeatOrder.UPSAMPLE_NORMALISE

    def grid(self, images: Float[Tensor, "B 3 H W"]) -> tuple[int, int]:
        """Patch rows and columns of `images`.

        Raises:
            TypeError: not a tensor of floats.
            ValueError: not a batch of RGB images, or a side is not a multiple of the patch side, or
                they are on another device than the model.
        """
        check_floats("images", images, "them preprocessed for the model, as a tensor of floats")
        if images.device != self.conv.weight.device:
            raise ValueError(
                f"images are on {images.device}, the model on {self.conv.weight.device}"
            )
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}, expected [B, 3, H, W]")
        height, width = images.shape[-2:]
        rows, columns = self.conv.kernel_size
        if min(height, width) == 0 or height % rows or width % columns:
            raise ValueError(
                f"image size {height}x{width} is not a multiple of the patch size "
                f"{rows}x{columns} in both directions"
            )
        return height // rows, width // columns

    def unplaced(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Prefix and patch tokens before the positional embedding."""
        patches = self.conv(images.to(self.dtype)).flatten(2).transpose(1, 2)
        prefix = [
            token.reshape(1, -1, token.shape[-1]).to(patches.dtype).expand(len(images), -1, -1)
            for token in self.prefix
        ]
        return torch.cat([*prefix, patches], dim=1)

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Tokens before the first block."""
        grid = self.grid(images)
        tokens = self.unplaced(images)
        result: Tensor = self.norm_pre(tokens + self.placed(grid).to(tokens.dtype))
        return result

    def placed(self, grid: tuple[int, int]) -> Float[Tensor, "N D"]:
        """Positional embedding for `grid`: the stored one, or a resized copy of it.

        The copy is made per call and never written back: an explainer that overwrites the model's
        own embedding is wrong from the second image size on. Prefix tokens without an embedding
        (registers, or towers that embed patches only) get zeros.
        """
        if self.positions is None:
            return self.conv.weight.new_zeros(1, self.conv.out_channels)
        split = len(self.positions) - self.native[0] * self.native[1]
        prefix, patches = self.positions[:split], self.positions[split:]
        if grid != self.native:
            image = patches.T.reshape(1, -1, *self.native).to(self.wide)
            resized = F.interpolate(
                image, size=grid, mode="bicubic", antialias=True, align_corners=False
            )
            patches = resized[0].flatten(1).T.to(patches.dtype)
        zeros = patches.new_zeros(self.prefix_count - split, patches.shape[1])
        return torch.cat([prefix, zeros, patches])

    def blocks_on(self, grid: tuple[int, int]) -> tuple[Block, ...]:
        """The blocks as they act on the tokens of `grid`, patch rows and columns.

        Rotary positions are made per call, outside inference mode: autograd can use them.
        """
        if self.rotations is None:
            return self.blocks
        with torch.inference_mode(False), torch.no_grad():
            rotations = self.rotations(grid)
        return tuple(
            replace(block, rotation=rotation)
            for block, rotation in zip(self.blocks, rotations, strict=True)
        )

    def embedding(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B E"]:
        """The model's own image embedding of the last block's output.

        L2-normalised for image-text models. For a classifier, what its head is applied to: the
        inner product with row c of the head is logit c without its bias.
        """
        if self.pooler is None:
            return self.read(self.pooled(tokens))
        weights = self.pooler.weights(tokens)
        return self.read(self.pooler.finish(weights @ self.pooler.values(tokens)))

    def pooled(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The vector that a tower without an attention pooler reads its embedding from."""
        return tokens[:, self.prefix_count :].mean(dim=1) if self.average else tokens[:, 0]

    def read(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """The embedding of a pooled vector, in the wide type."""
        return self.head.embed(pooled.to(self.wide))
