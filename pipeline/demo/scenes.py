"""Procedural scenes with exact masks: emoji sprites scattered over random backgrounds.

A scene is a pure function of (seed, index, side): the same three numbers give the same pixels.
Training and held-out scenes differ in their seed only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from pipeline.evaluation.points.definition import Point

TRAIN_SEED = 1
HELD_OUT_SEED = 2
POINT_SEED = 3

MAX_OBJECTS = 5
SIZES = (0.25, 0.55)
"""Longest side of an upright sprite as a fraction of the scene's side."""
MAX_ANGLE = 25.0
"""Largest rotation either way, in degrees."""
MIN_VISIBLE = 0.5
"""Every object keeps at least this fraction of its pixels uncovered."""
PLACEMENTS = 20
"""Positions tried for an object before the scene goes without it."""
INSIDE, OUTSIDE = 8, 24
"""Points per object: on its visible pixels, and elsewhere in the scene."""
FILTERS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Scene:
    """An image and the visible pixels of every object in it.

    Attributes:
        image: RGB pixels, row-major.
        masks: class name → its visible pixels, in the order the objects were laid down.
            Classes are distinct, masks are disjoint and none is empty.
    """

    image: UInt8[np.ndarray, "side side 3"]
    masks: dict[str, Bool[np.ndarray, "side side"]]

    @property
    def caption(self) -> str:
        """The class names in alphabetical order, joined as a person would say them."""
        *head, last = (f"a {name}" for name in sorted(self.masks))
        return f"{', '.join(head)} and {last}" if head else last


def make_scene(sprites: Mapping[str, Image.Image], seed: int, index: int, side: int) -> Scene:
    """Draw scene `index` of the stream `seed` at `side` × `side` pixels."""
    rng = np.random.default_rng((seed, index))
    canvas = _background(rng, side)
    objects: dict[str, _Object] = {}
    names = list(sprites)
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    for choice in rng.choice(len(names), size=count, replace=False):
        sprite = _pose(sprites[names[choice]], rng, side)
        window = _find_place(list(objects.values()), sprite, rng, side)
        if window is not None:
            objects[names[choice]] = _paint(canvas, list(objects.values()), sprite, window)
    image = np.rint(canvas).astype(np.uint8)
    return Scene(image, {name: thing.visible for name, thing in objects.items()})


@dataclass
class _Object:
    visible: np.ndarray  # bool [side, side]
    pixels: int  # when nothing covered it


_Window = tuple[slice, slice]


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """A small grid of random colours enlarged to float32 [side, side, 3]."""
    cells = rng.integers(0, 256, size=(*rng.integers(1, 9, size=2), 3), dtype=np.uint8)
    enlarged = Image.fromarray(cells).resize((side, side), FILTERS[rng.integers(len(FILTERS))])
    return np.array(enlarged, dtype=np.float32)


def _pose(sprite: Image.Image, rng: np.random.Generator, side: int) -> np.ndarray:
    """The sprite scaled, flipped and turned: float32 RGBA [h, w, 4] in 0..255."""
    scale = rng.uniform(*SIZES) * side / max(sprite.size)
    size = (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale)))
    posed = sprite.resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        posed = posed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    posed = posed.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    posed = posed.crop((0, 0, min(side, posed.width), min(side, posed.height)))
    return np.asarray(posed, dtype=np.float32)


def _find_place(
    objects: list[_Object], sprite: np.ndarray, rng: np.random.Generator, side: int
) -> _Window | None:
    """A random window for `sprite` in which it hides no earlier object by more than allowed."""
    height, width = sprite.shape[:2]
    opaque = _opaque(sprite)
    for _ in range(PLACEMENTS):
        top = int(rng.integers(0, side - height + 1))
        left = int(rng.integers(0, side - width + 1))
        window = (slice(top, top + height), slice(left, left + width))
        if all(
            thing.visible.sum() - (thing.visible[window] & opaque).sum()
            >= MIN_VISIBLE * thing.pixels
            for thing in objects
        ):
            return window
    return None


def _paint(
    canvas: np.ndarray, objects: list[_Object], sprite: np.ndarray, window: _Window
) -> _Object:
    """Blend `sprite` into `canvas` in place and take the pixels it covers from `objects`."""
    alpha = sprite[..., 3:] / 255
    canvas[window] += alpha * (sprite[..., :3] - canvas[window])
    opaque = _opaque(sprite)
    for thing in objects:
        thing.visible[window] &= ~opaque
    visible = np.zeros(canvas.shape[:2], dtype=bool)
    visible[window] = opaque
    return _Object(visible, int(opaque.sum()))


def _opaque(sprite: np.ndarray) -> np.ndarray:
    opaque: np.ndarray = sprite[..., 3] >= 128
    return opaque


def sample_points(scene: Scene, index: int) -> dict[str, list[Point]]:
    """Labelled points of every object, drawn uniformly; `index` is the seed."""
    rng = np.random.default_rng((POINT_SEED, index))
    return {
        name: _points_on(mask, INSIDE, True, rng) + _points_on(~mask, OUTSIDE, False, rng)
        for name, mask in scene.masks.items()
    }


def _points_on(region: np.ndarray, count: int, yes: bool, rng: np.random.Generator) -> list[Point]:
    height, width = region.shape
    pixels = rng.choice(np.flatnonzero(region), size=count)
    return [
        Point((pixel % width + 0.5) / width, (pixel // width + 0.5) / height, yes)
        for pixel in pixels.tolist()
    ]
