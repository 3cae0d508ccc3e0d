"""A small feature pyramid that gives every pixel a class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 128)
"""Channels of the levels, at 1/2, 1/4, 1/8 and 1/16 of the image."""
PYRAMID = 40
"""Channels of every level once they are added up."""


class Student(nn.Module):
    """Four levels of convolutions, joined from the coarsest up (Lin et al., FPN, CVPR 2017).

    It has 0.32 million parameters for 49 classes, most of them where pixels are few.
    """

    def __init__(self, classes: int) -> None:
        """Make it with random weights.

        Args:
            classes: with the background.
        """
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(_convolution(narrow, wide, stride=2), *_more(wide))
            for narrow, wide in zip(inputs, WIDTHS, strict=True)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS)
        self.smooth = _convolution(PYRAMID, PYRAMID)
        self.classify = nn.Conv2d(PYRAMID, classes, 1)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class rows columns"]:
        """Logits of every class at half the size of the images.

        Args:
            images: RGB, 0 to 1; sides are multiples of 16.
        """
        features, levels = images, list[Tensor]()
        for level, lateral in zip(self.levels, self.laterals, strict=True):
            features = level(features)
            levels.append(lateral(features))
        finest, second, third, joined = levels
        for finer in (third, second):
            joined = finer + F.interpolate(joined, scale_factor=2.0, mode="nearest")
        joined = finest + F.interpolate(self.smooth(joined), scale_factor=2.0, mode="nearest")
        logits: Tensor = self.classify(F.relu(joined))
        return logits

    @torch.inference_mode()
    def segment(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> UInt8[Tensor, "batch height width"]:
        """The most likely class of every pixel; images as for `forward`."""
        logits = F.interpolate(self(images), scale_factor=2.0, mode="bilinear")
        return logits.argmax(1).to(torch.uint8)


def _more(width: int) -> list[nn.Module]:
    """The second convolution of a level; the finest one would spend half of all time on it."""
    return [] if width == WIDTHS[0] else [_convolution(width, width)]


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
