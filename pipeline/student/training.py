"""A student is trained on maps of labels, and scored on true ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from pipeline.loading import MaskDataset
from pipeline.outputs.semantic import IGNORE
from pipeline.student.network import Student
from pipeline.student.scenes import LABELS, Labelled

CLASSES = len(LABELS) + 1
BATCH = 16
RATE, WEIGHT_DECAY = 4e-3, 1e-2
SCORED_AT_ONCE = 64

Batch = tuple[Tensor, Tensor]


def train(
    dataset: MaskDataset, steps: int, seed: int, say: Callable[[int, float], None]
) -> Student:
    """A network trained on the `semantic` maps of a dataset; equal arguments make equal networks.

    Args:
        dataset: of maps at one size.
        steps: of `BATCH` images.
        seed: of the network's weights.
        say: is told step and loss.
    """
    torch.manual_seed(seed)
    student = Student(CLASSES).train()
    optimizer = AdamW(student.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = OneCycleLR(optimizer, RATE, total_steps=steps)
    for step, (images, labels) in enumerate(itertools.islice(endless(dataset), steps), 1):
        # Logits have half the size; to learn from every pixel takes most of the time.
        half = labels[:, ::2, ::2].long()
        loss = F.cross_entropy(student(unit(images)), half, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        say(step, float(loss.detach()))
    return student.eval()


def endless(dataset: MaskDataset) -> Iterator[Batch]:
    """Batches of uint8 images [batch, 3, side, side] and labels, epoch after epoch."""
    loader = DataLoader(dataset, BATCH, drop_last=True)
    for epoch in itertools.count():
        dataset.set_epoch(epoch)
        for images, targets in loader:
            yield images, targets["semantic"]


def unit(images: UInt8[Tensor, ...]) -> Float[Tensor, ...]:
    """Pixels from 0 to 1."""
    return images.float() / 255


def score(student: Student, scenes: Labelled) -> float:
    """Mean over all classes, background included, of the IoU over all pixels of some scenes."""
    confusion = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for first in range(0, len(scenes.images), SCORED_AT_ONCE):
        part = slice(first, first + SCORED_AT_ONCE)
        found = student.segment(unit(scenes.images[part]))
        confusion += confuse(scenes.labels[part].numpy(), found.numpy())
    return mean_iou(confusion)


def confuse(
    truth: UInt8[np.ndarray, ...], found: UInt8[np.ndarray, ...]
) -> Int64[np.ndarray, "truth found"]:
    """Pixels of every true and found class."""
    pairs = truth.astype(np.int64).ravel() * CLASSES + found.ravel()
    return np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def mean_iou(confusion: Int64[np.ndarray, "truth found"]) -> float:
    """Mean IoU of the classes that are there or were found."""
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return float((hits[union > 0] / union[union > 0]).mean())
