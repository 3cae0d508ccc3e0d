"""YOLO's segmentation labels: a text file per image with polygons in parts of its width and height.

A polygon has no holes and no second part: holes are filled, and every part is an object of its own.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import yaml

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.export.images import ImageFormat, ImagesConfig
from pipeline.export.instances import Instance, Selected
from pipeline.export.pictures import Picture
from pipeline.export.polygons import Outline, outlines
from pipeline.outputs.masks import decode
from pipeline.outputs.records import Commit

FEWEST_POINTS = 3
DIGITS = 6


@dataclass(frozen=True)
class YoloConfig(ImagesConfig):
    """YOLO segmentation labels as polygons; holes are lost, and parts become objects."""

    outline_area: float = 0.0
    """Parts of a mask whose outline is smaller are left out: pixels from 1 up, a fraction of the
    image below 1."""

    FORMAT: ClassVar[str] = "yolo"
    BY_STEM: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outline_area < 0:
            raise ConfigError(f"--outline_area {self.outline_area}: must not be negative")


class Yolo(ImageFormat[YoloConfig]):
    """`labels/`, `images/` where they are copied, and `dataset.yaml`."""

    def last_files(self) -> Sequence[str]:
        """What trainers are given."""
        return ["dataset.yaml"]

    def write_shard(self, selected: Selected) -> Counter[str]:
        """A file per image, also where it is empty, and its pixels if they are wanted."""
        lost = Counter[str]()
        for picture in selected.pictures:
            found = selected.instances.get(picture.sample, ())
            lines = [line for instance in found for line in self._lines(picture, instance, lost)]
            path = posixpath.join("labels", picture.part, f"{picture.stem}.txt")
            storage.write_bytes(self.state.path(path), "".join(lines).encode())
        if self.shards:
            for picture, _, data in self.read_images(selected):
                path = posixpath.join("images", picture.part, picture.file_name)
                storage.write_bytes(self.state.path(path), data)
        return lost

    def finish(self, commits: Sequence[Commit]) -> None:
        """Classes from 0 by name; every part of the data, or all of it as training and val."""
        folders = {part: f"images/{part}" for part in self.parts if part}
        content = {
            **(folders or {"train": "images", "val": "images"}),
            "names": dict(enumerate(self.categories)),
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        storage.write_bytes(self.state.path("dataset.yaml"), text.encode())

    def _lines(self, picture: Picture, instance: Instance, lost: Counter[str]) -> list[str]:
        parts = outlines(decode(instance.segmentation))
        least = self.config.outline_area
        if least < 1:
            least *= picture.height * picture.width
        kept = [part for part in parts if part.area >= least]
        counts = {
            "holes filled": sum(part.holes for part in kept),
            "parts that became objects of their own": max(0, len(kept) - 1),
            "parts left out, smaller than --outline_area": len(parts) - len(kept),
            "objects left out, with all their parts": int(not kept),
        }
        lost.update({what: count for what, count in counts.items() if count})
        return [_line(picture, instance.category - 1, part) for part in kept]


def _line(picture: Picture, number: int, part: Outline) -> str:
    assert len(part.points) >= FEWEST_POINTS
    parts: np.ndarray = part.points / (picture.width, picture.height)
    return " ".join([str(number), *(f"{value:.{DIGITS}g}" for value in parts.ravel())]) + "\n"
