"""Batches of images that need not have one size."""

from __future__ import annotations

from collections.abc import Sequence

from torchvision import tv_tensors

from pipeline.loading.targets import Target


def collate(
    samples: Sequence[tuple[tv_tensors.Image, Target]],
) -> tuple[list[tv_tensors.Image], list[Target]]:
    """Images and targets as two lists, as torchvision's detectors take them.

    Where all have one size, `torch.stack(images)` makes one tensor.
    """
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
