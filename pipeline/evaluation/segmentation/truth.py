"""Ground truth for segmentation, found for the samples of a shard: COCO, class-index PNGs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco

from pipeline import storage
from pipeline.errors import ConfigError, Reject
from pipeline.evaluation.matching import Matcher, as_key
from pipeline.inputs.classes import is_blank, load_classes
from pipeline.inputs.images import decode_indices
from pipeline.inputs.tars import RawSample
from pipeline.outputs.masks import stretched
from pipeline.outputs.run_lengths import checked_ends

PNG = ".png"
MOST_PIXELS = 100_000_000
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
        image: what the truth calls it; empty where the sample itself brings it.
    """

    names: list[str]
    masks: Bool[np.ndarray, "class height width"]
    ignored: Bool[np.ndarray, "height width"]
    unnamed: tuple[int, ...] = ()
    image: str = ""

    def resized(self, size: int) -> ClassMasks:
        """Squashed to a square, nearest pixel."""
        masks = np.stack([stretched(mask, size, size) for mask in self.masks])
        return replace(self, masks=masks, ignored=stretched(self.ignored, size, size))


Value = TypeVar("Value")
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
    """COCO instances: the regions of a class in an image are one mask, crowds do not count.

    Attributes:
        left_out: what is wrong with annotations that are not used → their ids.
    """

    def __init__(self, location: str) -> None:
        """Read the file, and look at every entry, so that none of them can end a shard later.

        Raises:
            ConfigError: it is no COCO ground truth, or two images have one name.
        """
        self.left_out: dict[str, list[Any]] = defaultdict(list)
        self._regions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        shown = f"--coco {storage.public(location)}"
        try:
            content = json.loads(storage.read_bytes(location).decode("utf-8-sig"))
            self._names = _by_id(
                "categories",
                (
                    (entry["id"], str(entry["name"]))
                    for entry in content["categories"]
                    if not is_blank(entry["name"])
                ),
            )
            self._images = _by_id("images", map(_image, content["images"]))
            entries = list(content["annotations"])
        except ConfigError as error:
            raise ConfigError(f"{shown}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{shown}: not COCO ground truth: {error!r}") from error
        for key, height, width in self._images.values():
            if not (0 < height and 0 < width and height * width <= MOST_PIXELS):
                raise ConfigError(
                    f"{shown}: the image {key} is said to have {width}x{height} pixels"
                )
        keys = [key for key, _, _ in self._images.values()]
        if twice := next((key for key, count in Counter(keys).items() if count > 1), None):
            raise ConfigError(f"{shown}: two images are called {twice}: nothing tells them apart")
        self._match = Matcher(keys)
        for entry in entries:
            if fault := self._fault(entry):
                self.left_out[fault].append(entry.get("id") if isinstance(entry, dict) else entry)
            else:
                self._regions[self._images[entry["image_id"]][0]].append(entry)
        for fault, ids in self.left_out.items():
            print(f"{shown}: {len(ids)} annotations left out: {fault}; the first: {ids[0]}")

    def __call__(self, raw: RawSample) -> ClassMasks | None:
        """The classes of a sample; see `Matcher`.

        Raises:
            Reject: `several_truths`.
        """
        image = self._match(raw.key)
        return None if image is None else self.of(image)

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
        return ClassMasks(list(masks), np.stack(list(masks.values())), ignored, image=image)

    def _fault(self, entry: Any) -> str:
        """Why an annotation cannot be used; empty where it can."""
        if not isinstance(entry, dict):
            return "no mapping"
        for name, known in (("image_id", self._images), ("category_id", self._names)):
            number = entry.get(name)
            if isinstance(number, list | dict) or number not in known:
                return f"no such {name}"
        if entry.get("iscrowd") not in (None, 0, 1):
            return "iscrowd is neither 0 nor 1"
        _, height, width = self._images[entry["image_id"]]
        return _region_fault(entry.get("segmentation"), height, width)


class IndexTruth:
    """Class-index PNGs: 0 is background, 255 does not count, other values are ids of classes."""

    def __init__(self, masks: str, field: str, classes: str) -> None:
        """Take the class file, and where the masks are: a folder, or a field of the samples.

        Raises:
            ConfigError: the class file is not as it should be.
            OSError: the folder cannot be listed.
        """
        self._masks, self._field = masks, field
        names = (path for path, _, _ in storage.listing(masks)) if masks else ()
        self._match = Matcher(name.removesuffix(PNG) for name in names if name.endswith(PNG))
        known = load_classes(classes, "--classes")
        self._names = {category.id: category.name for category in known}

    def __call__(self, raw: RawSample) -> ClassMasks | None:
        """The classes of a sample; None where it has no mask, or only background.

        Raises:
            Reject: the mask does not decode, or has only ids that the class file does not know; or
                several may be meant.
        """
        name, data = ("", raw.fields.get(self._field)) if self._field else self._file(raw.key)
        if data is None:
            return None
        try:
            index = decode_indices(data, MOST_PIXELS)
        except Reject as reject:
            raise Reject("bad_mask", reject.detail) from reject
        truth, unnamed = self.of(index), self._unnamed(index)
        if truth is None and unnamed:
            raise Reject(
                f"no class, id {unnamed[0]} not in --classes", "the mask has no id of a class"
            )
        return None if truth is None else replace(truth, image=name)

    def _file(self, key: str) -> tuple[str, bytes | None]:
        """The mask of a key, and which it is; see `Matcher`."""
        name = self._match(key)
        if name is None:
            return "", None
        return name, storage.read_bytes(storage.join(self._masks, *f"{name}{PNG}".split("/")))

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


def _image(entry: Any) -> tuple[Any, tuple[str, int, int]]:
    """Id, name, height and width of an image.

    Raises:
        ConfigError: naming the image that has not all of them.
    """
    try:
        size = int(entry["height"]), int(entry["width"])
        return entry["id"], (as_key(entry["file_name"]), *size)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(
            f"the image {str(entry)[:80]} has not an id, a file_name, a height and a width"
        ) from error


def _by_id(what: str, entries: Iterable[tuple[Any, Value]]) -> dict[Any, Value]:
    """Entries of a COCO file by their ids.

    Raises:
        ConfigError: two that differ have one id.
    """
    found: dict[Any, Value] = {}
    for number, value in entries:
        if found.setdefault(number, value) != value:
            raise ConfigError(f"two {what} have the id {number}: {found[number]} and {value}")
    return found


def _region_fault(segmentation: Any, height: int, width: int) -> str:
    """Why a segmentation cannot be decoded; empty where it can. Polygons are not drawn for it."""
    if not segmentation:
        return "no segmentation"
    if isinstance(segmentation, list):
        far = 2 * max(height, width)  # what is drawn takes memory with the length of its outline
        good = all(_is_polygon(points, far) for points in segmentation)
        return "" if good else "not a list of polygons in the image"
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        return "its run lengths have another size than the image"
    ends = checked_ends(segmentation.get("counts"))  # pycocotools itself reads on past their end
    if ends is None or (np.diff(ends, prepend=0) < 0).any():
        return "its run lengths do not decode"
    return "" if ends[-1] == height * width else "its run lengths do not fill the image"


def _is_polygon(points: Any, far: int) -> bool:
    """Whether these are x and y of at least three corners, none of them further off than `far`."""
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(value, int | float) and abs(value) <= far for value in points)
    )


def _region_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Polygons, or run lengths of either kind."""
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        segmentation = coco.frPyObjects(segmentation, height, width)
    if isinstance(segmentation, list):
        segmentation = coco.merge(segmentation)
    mask: np.ndarray = coco.decode(segmentation).astype(bool)
    return mask
