"""The audio tower of ImageBind: a vision transformer over a spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.audio.spectrum import BANDS, CLIP_FRAMES

SMALLEST = 1e-6
"""What normalisation adds to a variance, but in the stem, which has PyTorch's 1e-5."""
MLP_RATIO = 4


@dataclass(frozen=True)
class AudioSizes:
    """Sizes of an audio tower; those of `imagebind_huge` where nothing is said.

    Attributes:
        embed: length of a vector in the joint space.
        width: channels of a token.
        layers: blocks.
        heads: of every block.
        patch: side of the square of the spectrum that a token is of.
        stride: bands, and frames, between two tokens.
    """

    embed: int = 1024
    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    stride: int = 10

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens over the bands, and over the frames."""
        bands, frames = ((n - self.patch) // self.stride + 1 for n in (BANDS, CLIP_FRAMES))
        return bands, frames


class AudioBlock(nn.Module):
    """A block whose attention has one learned key and value more than there are tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=SMALLEST)
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=True, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=SMALLEST)
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(
        self, tokens: Float[Tensor, "clip token width"]
    ) -> Float[Tensor, "clip token width"]:
        """The tokens after this block."""
        normed = self.norm_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False)[0]
        mlp = self.fc2(nn.functional.gelu(self.fc1(self.norm_2(tokens))))
        after: Tensor = tokens + mlp
        return after


class AudioTower(nn.Module):
    """Spectra in, vectors in the joint space out.

    Girdhar et al., ImageBind (CVPR 2023): section 3.1 and its appendix; written from a description.
    """

    def __init__(self, sizes: AudioSizes) -> None:
        super().__init__()
        self.sizes = sizes
        bands, frames = sizes.grid
        width = sizes.width
        self.patches = nn.Conv2d(1, width, sizes.patch, sizes.stride, bias=False)
        self.stem_norm = nn.LayerNorm(width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + bands * frames, width))
        self.blocks = nn.ModuleList(AudioBlock(width, sizes.heads) for _ in range(sizes.layers))
        self.head_norm = nn.LayerNorm(width, eps=SMALLEST)
        self.head = nn.Linear(width, sizes.embed, bias=False)

    def tokens(self, spectra: Float[Tensor, "clip 1 128 204"]) -> Float[Tensor, "clip token embed"]:
        """Every token in the joint space, not normalised: the class token, then band by band."""
        patches = self.stem_norm(self.patches(spectra).flatten(2).transpose(1, 2))
        first = self.class_token.expand(len(spectra), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        projected: Tensor = self.head(self.head_norm(tokens))
        return projected

    def forward(self, spectra: Float[Tensor, "clip 1 128 204"]) -> Float[Tensor, "clip embed"]:
        """The class token in the joint space, not normalised."""
        return self.tokens(spectra)[:, 0]
