"""Fresh scenes of the demo's renderer, for training and for scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pipeline.demo.bundle import write_scenes
from pipeline.demo.scenes import Scene, make_scene
from pipeline.demo.sprites import CLASSES

SIDE = 96
TRAIN_SEED, CHOOSE_SEED, SCORE_SEED = 11, 12, 13
"""Streams of scenes that have none in common, with each other or with those of the demo's CLIP."""
SHARD = 250
"""Scenes in a shard."""
LABELS = {name: number for number, name in enumerate(sorted(CLASSES), 1)}
"""As loaders number the categories of a run that has looked for all of them; 0 is background."""

Sprites = Mapping[str, Image.Image]


@dataclass(frozen=True)
class Labelled:
    """Some scenes with the true label of every pixel, 0 for background."""

    images: UInt8[Tensor, "scene 3 side side"]
    labels: UInt8[Tensor, "scene side side"]


def draw(sprites: Sprites, seed: int, count: int) -> list[Scene]:
    """The first scenes of a stream."""
    return [make_scene(sprites, seed, index, SIDE) for index in range(count)]


def write_shards(folder: Path, scenes: Sequence[Scene]) -> None:
    """Write scenes as shards with the names of what is in them, and no masks."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(scenes), SHARD):
        path = folder / f"train-{first // SHARD:05d}.tar"
        write_scenes(path, first, scenes[first : first + SHARD])


def label(scene: Scene) -> UInt8[np.ndarray, "side side"]:
    """The true label of every pixel: masks are disjoint."""
    labels = np.zeros(scene.image.shape[:2], dtype=np.uint8)
    for name, mask in scene.masks.items():
        labels[mask] = LABELS[name]
    return labels


def labelled(scenes: Sequence[Scene]) -> Labelled:
    """Scenes as a network takes them."""
    images = np.stack([scene.image.transpose(2, 0, 1) for scene in scenes])
    labels = np.stack([label(scene) for scene in scenes])
    return Labelled(torch.from_numpy(images), torch.from_numpy(labels))
