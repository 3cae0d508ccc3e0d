"""Ground truth for segmentation, found for the samples of a shard: COCO, class-index PNGs."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from pycocotools import mask as coco

from pipeline import storage
from pipeline.errors import ConfigError, Reject, one_line
from pipeline.evaluation.predictions import image_id_of
from pipeline.inputs.classes import load_classes
from pipeline.inputs.tars import RawSample
from pipeline.outputs.masks import stretched

IGNORED = 255
"""Value of pixels that do not count, in class-index masks."""


@dataclass(frozen=True)
class ClassMasks:
    """Where the classes of an image are.

    Attributes:
        names: of the classes that are there.
        masks: one per class; they may overlap.
        ignored: pixels that do not count.
        unnamed: ids in a class-index mask that are no class; they count as background.
    """

    names: list[str]
    masks: Bool[np.ndarray, "class height width"]
    ignored: Bool[np.ndarray, "height width"]
    unnamed: tuple[int, ...] = ()

    def resized(self, size: int) -> ClassMasks:
        """Squashed to a square, nearest pixel."""
        masks = np.stack([stretched(mask, size, size) for mask in self.masks])
        return replace(self, masks=masks, ignored=stretched(self.ignored, size, size))


FindTruth = Callable[[RawSample], ClassMasks | None]


def truth_of(coco_file: str, masks: str, classes: str, field: str = "") -> FindTruth:
    """The ground truth that settings name: a COCO file, or class-index masks.

    Args:
        coco_file: location of the COCO file; empty for masks.
        masks: folder of the masks.
        classes: class file of the masks.
        field: of the samples, with the masks, instead of a folder.

    Raises:
        ConfigError: a file is not what it should be.
    """
    return CocoTruth(coco_file) if coco_file else IndexTruth(masks, field, classes)


class CocoTruth:
    """COCO instances: the regions of a class in an image are one mask, crowds do not count."""

    def __init__(self, location: str) -> None:
        """Read the file.

        Raises:
            ConfigError: it is no COCO ground truth.
        """
        try:
            content = json.loads(storage.read_bytes(location))
            self._names = {entry["id"]: entry["name"] for entry in content["categories"]}
            self._images = {
                entry["id"]: (Path(entry["file_name"]).stem, entry["height"], entry["width"])
                for entry in content["images"]
            }
            self._regions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for entry in content["annotations"]:
                self._regions[self._images[entry["image_id"]][0]].append(entry)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"--coco {location}: not COCO ground truth: {error!r}") from error

    def __call__(self, raw: RawSample) -> ClassMasks | None:
        """The classes of a sample, by the base name of its key."""
        return self.of(image_id_of(raw.key))

    def of(self, image: str) -> ClassMasks | None:
        """The classes of an image; None where it is not in the file, or has none."""
        masks: dict[str, np.ndarray] = {}
        ignored: np.ndarray | None = None
        for region in self._regions.get(image, []):
            _, height, width = self._images[region["image_id"]]
            mask = _region_mask(region["segmentation"], height, width)
            ignored = np.zeros_like(mask) if ignored is None else ignored
            if region.get("iscrowd"):
                ignored |= mask
                continue
            name = self._names[region["category_id"]]
            masks[name] = masks[name] | mask if name in masks else mask
        if not masks or ignored is None:
            return None
        return ClassMasks(list(masks), np.stack(list(masks.values())), ignored)


class IndexTruth:
    """Class-index PNGs: 0 is background, 255 does not count, other values are ids of classes."""

    def __init__(self, masks: str, field: str, classes: str) -> None:
        """Take the class file, and where the masks are: a folder, or a field of the samples."""
        self._masks, self._field = masks, field
        known = load_classes(classes, "--classes")
        self._names = {category.id: category.name for category in known}

    def __call__(self, raw: RawSample) -> ClassMasks | None:
        """The classes of a sample; None where it has no mask, or only background.

        Raises:
            Reject: the mask does not decode, or has only ids that the class file does not know.
        """
        if self._field:
            data = raw.fields.get(self._field)
        else:
            location = storage.join(self._masks, f"{raw.key.rpartition('/')[2]}.png")
            data = storage.read_bytes(location) if storage.exists(location) else None
        if data is None:
            return None
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                index = np.array(image)
        except Exception as error:  # damaged files lead Pillow's decoders to raise almost anything
            raise Reject("bad_mask", one_line(error, kind=True)) from error
        if index.ndim != 2:
            raise Reject("bad_mask", f"the mask has {index.ndim} axes, and not one value per pixel")
        truth, unnamed = self.of(index), self._unnamed(index)
        if truth is None and unnamed:
            raise Reject(
                f"no class, id {unnamed[0]} not in --classes", "the mask has no id of a class"
            )
        return truth

    def _unnamed(self, index: UInt8[np.ndarray, "height width"]) -> tuple[int, ...]:
        """The ids in a mask that the class file does not know."""
        return tuple(sorted({int(i) for i in np.unique(index)} - {0, IGNORED, *self._names}))

    def of(self, index: UInt8[np.ndarray, "height width"]) -> ClassMasks | None:
        """The classes in a mask; ids that the class file does not know are background."""
        ids = [int(i) for i in np.unique(index) if int(i) in self._names and i != IGNORED]
        if not ids:
            return None
        masks = np.stack([index == i for i in ids])
        names = [self._names[i] for i in ids]
        return ClassMasks(names, masks, index == IGNORED, self._unnamed(index))


def _region_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Polygons, or run lengths of either kind."""
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        segmentation = coco.frPyObjects(segmentation, height, width)
    if isinstance(segmentation, list):
        segmentation = coco.merge(segmentation)
    mask: np.ndarray = coco.decode(segmentation).astype(bool)
    return mask
