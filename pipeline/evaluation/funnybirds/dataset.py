"""FunnyBirds as it lies on the disk: its classes, its test images, and what is made of them.

Hesse et al., FunnyBirds (ICCV 2023). Below the root are `classes.json`, `parts.json` and
`dataset_test.json`, and for image number i of class c

    test/c/i.png, test_part_map/c/i.png                             i with six digits
    test_interventions/c/i/body_beak_eye.png                        the parts that are left, sorted
    test_interventions/c/i/background_interventions/n.png           background object n is gone
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, naming, one_line
from pipeline.inputs.shards import Shard

FILES = ("classes.json", "parts.json", "dataset_test.json")
PARTS = ("beak", "eye", "foot", "tail", "wing")
DIFFERING = 3
"""Parts that a class shares two of the five with another by."""
NUMBER = re.compile(r"\b\d+\b")


@dataclass(frozen=True)
class Bird:
    """A test image.

    Attributes:
        number: its place in `dataset_test.json`, and its file name.
        target: its class.
        objects: background objects in it.
    """

    number: int
    target: int
    objects: int

    @property
    def name(self) -> str:
        """Its number as file names have it."""
        return f"{self.number:06d}"


@dataclass(frozen=True)
class Rivals:
    """Two other classes, and the parts that each shares with the class of an image."""

    first: int
    second: int
    first_parts: frozenset[str]
    second_parts: frozenset[str]


@dataclass(frozen=True)
class Birds:
    """What the JSON files say.

    Attributes:
        classes: which form of each of `PARTS` a class has.
        birds: all test images, in order.
    """

    classes: Sequence[Mapping[str, int]]
    birds: Sequence[Bird]

    @classmethod
    def load(cls, root: str) -> Birds:
        """Read and check the files below `root`.

        Raises:
            ConfigError: one is not there, or is not as it should be.
        """
        classes, parts, images = (_json(root, name) for name in FILES)
        if not isinstance(parts, dict) or set(parts) != set(PARTS):
            raise _wrong(root, "parts.json", f"its keys have to be {', '.join(PARTS)}")
        if not isinstance(classes, list) or len(classes) < 2:
            raise _wrong(root, "classes.json", "it has to be a list of classes")
        for position, entry in enumerate(classes):
            if fault := _class_fault(entry, position, parts):
                raise _wrong(root, "classes.json", f"entry {position}: {fault}")
        if not isinstance(images, list) or not images:
            raise _wrong(root, "dataset_test.json", "it has to be a list of images")
        for position, entry in enumerate(images):
            if fault := _image_fault(entry, len(classes)):
                raise _wrong(root, "dataset_test.json", f"entry {position}: {fault}")
        return cls(
            [{part: entry["parts"][part] for part in PARTS} for entry in classes],
            [
                Bird(position, entry["class_idx"], len(NUMBER.findall(entry["bg_objects"])))
                for position, entry in enumerate(images)
            ],
        )

    def shared(self, first: int, second: int) -> frozenset[str]:
        """The parts that two classes have in the same form."""
        of = self.classes
        return frozenset(part for part in PARTS if of[first][part] == of[second][part])

    def sufficient(self, target: int, corrected: bool = False) -> list[frozenset[str]]:
        """The smallest sets of parts that tell a class from all others; none contains another.

        Args:
            target: the class.
            corrected: without it, the last class has none, as in the authors' code, where the
                loop over the other classes ends before it takes any of its sets.
        """
        if target == len(self.classes) - 1 and not corrected:
            return []
        others = [self.shared(target, c) for c in range(len(self.classes)) if c != target]
        telling: list[frozenset[str]] = []
        for size in range(1, len(PARTS) + 1):
            for chosen in map(frozenset, combinations(PARTS, size)):
                in_others = any(chosen <= shared for shared in others)
                if not in_others and not any(smaller < chosen for smaller in telling):
                    telling.append(chosen)
        return telling

    def rivals(self, target: int, corrected: bool = False) -> Rivals | None:
        """The first two classes that share two parts each with a class, and not the same ones.

        Args:
            target: the class.
            corrected: without it, the last two are taken where no two have no part in common, as
                in the authors' code.

        Returns:
            None where there are no two to take.
        """
        shared = {c: self.shared(target, c) for c in range(len(self.classes))}
        near = [c for c, parts in shared.items() if len(parts) == len(PARTS) - DIFFERING]
        pairs = list(combinations(near, 2))
        apart = [(a, b) for a, b in pairs if not shared[a] & shared[b]]
        taken = apart[:1] or ([] if corrected else pairs[-1:])
        return next((Rivals(a, b, shared[a], shared[b]) for a, b in taken), None)


@dataclass(frozen=True)
class Files:
    """Where the images are.

    Attributes:
        root: of the data set.
    """

    root: str

    def image(self, bird: Bird) -> str:
        """The image."""
        return storage.join(self.root, "test", str(bird.target), f"{bird.name}.png")

    def part_map(self, bird: Bird) -> str:
        """Its parts, each in a colour."""
        return storage.join(self.root, "test_part_map", str(bird.target), f"{bird.name}.png")

    def without(self, bird: Bird, removed: Collection[str]) -> str:
        """The image without some of its parts."""
        left = "_".join(part for part in PARTS if part not in removed)
        return storage.join(self._interventions(bird), f"body_{left}.png")

    def without_object(self, bird: Bird, number: int) -> str:
        """The image without one of its background objects."""
        return storage.join(self._interventions(bird), "background_interventions", f"{number}.png")

    def shards(self, birds: Birds) -> list[Shard]:
        """A shard for the images of every class, in order."""
        targets = sorted({bird.target for bird in birds.birds})
        return [self._shard(str(target)) for target in targets]

    def _shard(self, target: str) -> Shard:
        folder = storage.join(self.root, "test", target)
        found = storage.list_files(folder).values()
        size = sum(file.size for file in found)
        return Shard(folder, f"test/{target}", size, max((f.modified for f in found), default=""))

    def _interventions(self, bird: Bird) -> str:
        return storage.join(self.root, "test_interventions", str(bird.target), bird.name)


def target_of(shard: Shard) -> int:
    """The class whose images are in a shard."""
    return int(shard.uri.rpartition("/")[2])


def _json(root: str, name: str) -> Any:
    shown = f"--data {storage.public(root)}"
    with naming(f"{shown}: {name}"):
        try:
            return json.loads(storage.read_bytes(storage.join(root, name)))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(
                f"{shown}: there is no {name} in it; give the folder FunnyBirds that has "
                f"{', '.join(FILES)} and test/"
            ) from error
        except (ValueError, RecursionError) as error:
            raise _wrong(root, name, f"no JSON: {one_line(error)}") from error


def _wrong(root: str, name: str, why: str) -> ConfigError:
    return ConfigError(f"--data {storage.public(root)}: {name} is not that of FunnyBirds: {why}")


def _class_fault(entry: Any, position: int, parts: Mapping[str, Any]) -> str:
    if not isinstance(entry, dict) or entry.get("class_idx") != position:
        return f"its class_idx has to be {position}"
    own = entry.get("parts")
    if not isinstance(own, dict) or set(own) != set(PARTS):
        return f"its parts have to be {', '.join(PARTS)}"
    for part in PARTS:
        forms = len(parts[part]) if isinstance(parts[part], list) else 0
        if not (type(own[part]) is int and 0 <= own[part] < forms):
            return f"{part} {own[part]!r} is none of the {forms} in parts.json"
    return ""


def _image_fault(entry: Any, classes: int) -> str:
    if not isinstance(entry, dict):
        return "no mapping"
    target, objects = entry.get("class_idx"), entry.get("bg_objects")
    if not (type(target) is int and 0 <= target < classes):
        return f"class_idx {target!r} is no class"
    return "" if isinstance(objects, str) else "it has no bg_objects"
