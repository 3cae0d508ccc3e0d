"""Small FunnyBirds in the real layout, and a model whose logits are sums of what is visible."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PARTS = ("beak", "eye", "foot", "tail", "wing")
FORMS = {"beak": 4, "eye": 3, "foot": 4, "tail": 9, "wing": 6}
SIDE, PATCH = 64, 6
MARGIN = 2  # of what a dilation by five adds on each side
ROWS, COLUMNS = (4, 20, 36, 52), (6, 26, 46)
SPOTS = [(row, column) for row in ROWS for column in COLUMNS]
PLACES = {"beak": [0], "eye": [1, 2], "foot": [3, 4], "tail": [5], "wing": [6, 7]}
OBJECTS = (8, 9, 10, 11)
MAP_COLOURS = {
    "beak": [(255, 255, 0)],
    "eye": [(255, 255, 253), (255, 255, 254)],
    "foot": [(255, 0, 1), (255, 0, 2)],
    "tail": [(0, 0, 255)],
    "wing": [(0, 255, 1), (0, 255, 2)],
}
GREY = 128


def colour(part: str, form: int) -> tuple[int, int, int]:
    return (20 + 10 * PARTS.index(part), 10 + 20 * form, 60)


@dataclass(frozen=True)
class World:
    """Classes, each with a form of every part, and birds: a class and a number of objects each."""

    classes: Sequence[tuple[int, ...]]
    birds: Sequence[tuple[int, int]]

    def image(
        self, number: int, removed: Collection[str] = (), without: int | None = None
    ) -> np.ndarray:
        """What the renderer would draw, [64, 64, 3]."""
        target, objects = self.birds[number]
        drawn = np.full((SIDE, SIDE, 3), GREY, dtype=np.uint8)
        drawn[0, 0] = (number % 251, number // 251, 1)  # so that no two images are the same
        for part, form in zip(PARTS, self.classes[target], strict=True):
            if part not in removed:
                for spot in PLACES[part]:
                    fill(drawn, spot, colour(part, form))
        for i in range(objects):
            if i != without:
                fill(drawn, OBJECTS[i], (200, 30 * i, 10))
        return drawn

    def part_map(self, number: int) -> np.ndarray:
        drawn = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        for part, colours in MAP_COLOURS.items():
            for spot, value in zip(PLACES[part], colours, strict=True):
                fill(drawn, spot, value)
        for i in range(self.birds[number][1]):
            fill(drawn, OBJECTS[i], (204, 204, 204 + i))
        return drawn

    def at(self, location: str) -> torch.Tensor:
        """The pixels [3, 64, 64] of a file of this data set, whether it is written or not."""
        path = Path(location)
        folders = path.parts
        if "test_part_map" in folders:
            drawn = self.part_map(int(path.stem))
        elif "background_interventions" in folders:
            drawn = self.image(int(folders[-3]), without=int(path.stem))
        elif "test_interventions" in folders:
            left = path.stem.split("_")[1:]
            drawn = self.image(int(folders[-2]), removed=set(PARTS) - set(left))
        else:
            drawn = self.image(int(path.stem))
        return torch.from_numpy(drawn).permute(2, 0, 1)

    def read(self, locations: Iterable[str]) -> list[torch.Tensor]:
        return [self.at(location) for location in locations]

    def write(self, root: Path) -> None:
        """All files of the test set."""
        root.mkdir(parents=True, exist_ok=True)
        parts = {
            part: [{"model": f"{part}{form:02d}.glb"} for form in range(FORMS[part])]
            for part in PARTS
        }
        classes = [
            {"class_idx": i, "parts": dict(zip(PARTS, forms, strict=True))}
            for i, forms in enumerate(self.classes)
        ]
        samples = [self._sample(target, objects, parts) for target, objects in self.birds]
        contents = {"parts": parts, "classes": classes, "dataset_test": samples}
        for name, content in contents.items():
            (root / f"{name}.json").write_text(json.dumps(content))
        for number, (target, objects) in enumerate(self.birds):
            own = Path(str(target), f"{number:06d}")
            write_png(root / "test" / f"{own}.png", self.image(number))
            write_png(root / "test_part_map" / f"{own}.png", self.part_map(number))
            folder = root / "test_interventions" / own
            for size in range(len(PARTS) + 1):
                for left in combinations(PARTS, size):
                    gone = set(PARTS) - set(left)
                    write_png(folder / f"body_{'_'.join(left)}.png", self.image(number, gone))
            for i in range(objects):
                place = folder / "background_interventions" / f"{i}.png"
                write_png(place, self.image(number, without=i))

    def _sample(self, target: int, objects: int, parts: dict) -> dict:
        forms = dict(zip(PARTS, self.classes[target], strict=True))
        sample = {"class_idx": target, "camera_distance": 600, "light_distance": 300}
        sample |= {f"{part}_model": parts[part][form]["model"] for part, form in forms.items()}
        sample |= {f"{part}_color": "red" for part in ("beak", "tail", "wing")}
        numbers = {"bg_objects": range(3, 3 + objects), "bg_radius": [100] * objects}
        return sample | {name: "".join(f"{n}," for n in values) for name, values in numbers.items()}


SMALL = World(
    [(0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (1, 1, 0, 0, 2), (2, 2, 2, 2, 3)],
    [(0, 1), (3, 0), (0, 2), (1, 0)],
)
"""Class 0 shares beak and eye with class 1, and foot and tail with class 2."""


def fill(drawn: np.ndarray, spot: int, value: tuple[int, int, int]) -> None:
    row, column = SPOTS[spot]
    drawn[row : row + PATCH, column : column + PATCH] = value


def write_png(path: Path, pixels: np.ndarray) -> None:
    """With an alpha that has to be ignored, as the real files have one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    alpha = np.full((*pixels.shape[:2], 1), 77, dtype=np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(path)


def centre(spot: int) -> tuple[int, int]:
    row, column = SPOTS[spot]
    return row + PATCH // 2, column + PATCH // 2


@dataclass
class Toy:
    """Logit c = sum of weights[c, part] over visible parts in the form of c, and of objects[c, i].

    `explain` makes the attributions [class, 64, 64] of an image; `asked` is what it was asked.
    """

    world: World
    weights: np.ndarray
    objects: np.ndarray
    kind: str = "perfect"
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def logits(self, images: Sequence[torch.Tensor]) -> tuple[np.ndarray, bool]:
        return np.stack([self.of(image) for image in images]), False

    def of(self, image: torch.Tensor) -> np.ndarray:
        found = np.zeros(len(self.world.classes))
        for position, part in enumerate(PARTS):
            row, column = centre(PLACES[part][0])
            seen = tuple(image[:, row, column].tolist())
            for c, forms in enumerate(self.world.classes):
                if seen == colour(part, forms[position]):
                    found[c] += self.weights[c, position]
        for i, spot in enumerate(OBJECTS):
            row, column = centre(spot)
            if image[0, row, column] == 200:
                found += self.objects[:, i]
        return found

    def attributions(
        self, image: torch.Tensor, classes: Sequence[int]
    ) -> tuple[torch.Tensor, bool]:
        self.asked.append(tuple(classes))
        return torch.stack([self.explain(image, c) for c in classes]), False

    def explain(self, image: torch.Tensor, target: int) -> torch.Tensor:
        """perfect: each part's weight on its pixels; the others are made of it, or of nothing."""
        drawn = torch.zeros(SIDE, SIDE)
        if self.kind == "constant":
            return drawn + 1
        for position, part in enumerate(PARTS):
            for spot in PLACES[part]:
                row, column = centre(spot)
                seen = tuple(image[:, row, column].tolist())
                if seen == colour(part, self.world.classes[target][position]):
                    share = self.weights[target, position] / len(PLACES[part])
                    drawn[row, column] = float(share)
        return -drawn if self.kind == "inverted" else drawn
