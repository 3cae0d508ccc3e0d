"""What a model wants of pixels: a size, a way to resize, a mean and a deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from open_clip.transform import center_crop_or_pad
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.inputs.images import normalise, squash
from pipeline.models.clip import Clip


@dataclass(frozen=True)
class Preprocess:
    """A model's own preprocessing, with a squash beside its own resize: every pixel is seen.

    Attributes:
        size: side of the square that images become.
        mean: of the training images, for values in 0..1.
        std: their deviation.
        interpolation: between pixels.
        resize_mode: `shortest` (the shorter side becomes `size`, the rest is cropped), `longest`
            (the longer side does, and the rest is padded) or `squash`.
        fill: grey level of the padding.
    """

    size: int
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]
    interpolation: InterpolationMode = InterpolationMode.BICUBIC
    resize_mode: str = "squash"
    fill: int = 0

    @classmethod
    def of_clip(cls, model: Clip, image_size: int | None = None) -> Preprocess:
        """That of an open_clip model.

        Args:
            model: a model with `visual.preprocess_cfg`.
            image_size: another side than the model's own.
        """
        settings = model.visual.preprocess_cfg
        native = settings["size"]
        return cls(
            size=image_size or (native if isinstance(native, int) else native[0]),
            mean=torch.tensor(settings["mean"]).view(3, 1, 1),
            std=torch.tensor(settings["std"]).view(3, 1, 1),
            interpolation=InterpolationMode(settings["interpolation"]),
            resize_mode=settings["resize_mode"],
            fill=settings["fill_color"],
        )

    @classmethod
    def of_classifier(
        cls,
        model: nn.Module,
        image_size: int | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> Preprocess:
        """That of a timm classifier: every image is squashed bilinearly.

        So did the code that Table 8's protocol is from (hila-chefer/Transformer-Explainability,
        generate_visualizations.py), where timm would crop.

        Args:
            model: a model with `pretrained_cfg`.
            image_size: another side than the model's own.
            given: `mean`, `std` and `interpolation` that somebody wrote down, which come first.
        """
        own: Any = model.pretrained_cfg
        settings = {**own, "interpolation": "bilinear", **(given or {})}
        return cls(
            size=image_size or settings["input_size"][-1],
            mean=torch.tensor(settings["mean"]).view(3, 1, 1),
            std=torch.tensor(settings["std"]).view(3, 1, 1),
            interpolation=InterpolationMode(settings["interpolation"]),
        )

    def squash(
        self, pixels: UInt8[Tensor, "3 height width"], size: int | None = None
    ) -> UInt8[Tensor, "3 side side"]:
        """Resize to the model's square, or one of another size, whatever the shape was."""
        return squash(pixels, size or self.size, self.interpolation)

    def fit(
        self, pixels: UInt8[Tensor, "3 height width"]
    ) -> UInt8[Tensor, "3 {self.size} {self.size}"]:
        """To the model's square in its `resize_mode`, as open_clip does, to a grey level or two."""
        height, width = pixels.shape[1:]
        if self.resize_mode == "squash":
            return self.squash(pixels)
        if self.resize_mode == "shortest":
            sides = [self.size]
        else:
            sides = [round(side * self.size / max(height, width)) for side in (height, width)]
        resized = transforms.resize(pixels, sides, self.interpolation, antialias=True)
        fitted: Tensor = center_crop_or_pad(resized, [self.size, self.size], self.fill)
        return fitted

    def normalise(
        self, batch: UInt8[Tensor, "batch 3 height width"], device: torch.device, dtype: torch.dtype
    ) -> Float[Tensor, "batch 3 height width"]:
        """From pixels to model input, computed in float32 on `device`."""
        return normalise(batch, self.mean, self.std, device, dtype)
