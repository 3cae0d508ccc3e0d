"""Perturbation, count for count, against loops over images, steps and pixels.

The reference shares the explainer with the stage, and the weights; what is removed, in which order,
what the model then sees, what it answers and the areas are its own.
"""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import legrad
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.sprites import CLASSES
from pipeline.evaluation.perturbation.counters import CURVES
from pipeline.models.demo import TEMPLATE, create, tokenize

Run = Callable[..., Any]
NAMES = list(CLASSES)
Pixels = np.ndarray  # [height, width, 3], 0..255
CURVE_KEYS = [(sign, kind) for sign in ("negative", "positive") for kind in ("predicted", "target")]


@dataclass
class Reference:
    """A model as its own library runs it.

    Attributes:
        model: the image tower, or all of it.
        rows: what an explainer takes as the text of each class.
        side: of the input.
        mean, std: of the input, per channel.
        logits: from model input to one number per class.
    """

    model: nn.Module
    rows: Tensor
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    logits: Callable[[Tensor], Tensor]

    def normalised(self, pixels: Pixels) -> Tensor:
        values = np.zeros((1, 3, self.side, self.side), dtype=np.float32)
        for channel in range(3):
            scaled = pixels[..., channel].astype(np.float32) / np.float32(255)
            mean, std = np.float32(self.mean[channel]), np.float32(self.std[channel])
            values[0, channel] = (scaled - mean) / std
        return torch.from_numpy(values)

    def answer(self, pixels: Pixels) -> int:
        with torch.no_grad():
            (logits,) = self.logits(self.normalised(pixels)).tolist()
        return max(range(len(logits)), key=logits.__getitem__)

    def heat(self, method: str, pixels: Pixels, classes: list[int]) -> dict[int, list[list[float]]]:
        explainer = legrad.build(method, self.model)
        index = torch.zeros(len(classes), dtype=torch.long)
        raw = explainer(self.normalised(pixels), self.rows[classes], index)
        maps = legrad.heatmap(raw, (self.side, self.side), order=explainer.heat_order)
        return dict(zip(classes, maps.tolist(), strict=True))


def clip_reference() -> Reference:
    model = create()
    with torch.no_grad():
        rows = model.encode_text(tokenize([TEMPLATE.format(n) for n in NAMES]), normalize=True)
    side: int = model.visual.image_size[0]
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Reference(
        model, rows, side, mean, std, lambda x: model.encode_image(x, normalize=True) @ rows.T
    )


def classifier_reference(weights: str) -> Reference:
    model: Any = timm.create_model("test_vit").eval().requires_grad_(False)
    model.load_state_dict(load_file(weights))
    half = (0.5, 0.5, 0.5)
    return Reference(model, model.head.weight, 160, half, half, model)


def in_order(heat: list[list[float]], sign: str) -> list[tuple[int, int]]:
    """Rows and columns: the hottest first (positive), or the coldest."""
    side = len(heat)
    places = [(row, column) for row in range(side) for column in range(side)]
    direction = -1 if sign == "positive" else 1
    # Equal heat goes in the order of reading, whatever the sign.
    places.sort(key=lambda place: (direction * heat[place[0]][place[1]], place))
    return places


def without_pixels(pixels: Pixels, places: list[tuple[int, int]], tenths: int) -> Pixels:
    """The image without the first so many tenths of its pixels."""
    left = pixels.copy()
    for row, column in places[: tenths * len(places) // 10]:
        for channel in range(3):
            left[row, column, channel] = 0
    return left


def counts_of(reference: Reference, method: str, pixels: Pixels, target: int) -> dict[str, Any]:
    predicted = reference.answer(pixels)
    heat = reference.heat(method, pixels, sorted({predicted, target}))
    row: dict[str, Any] = {"target": target, "predicted": predicted}
    for sign, kind in CURVE_KEYS:
        explained = predicted if kind == "predicted" else target
        places = in_order(heat[explained], sign)
        row[f"{sign}_{kind}"] = [
            reference.answer(without_pixels(pixels, places, tenths)) == target
            for tenths in range(1, 10)
        ]
    return row


def area(clean: float, after: list[float]) -> float:
    """100 · ∫ accuracy, straight lines between 0, 10, … and 90 % of the pixels removed."""
    points = [clean, *after]
    total = 0.0
    for left, right in pairwise(points):
        total += 0.1 * (left + right) / 2
    return 100 * total


def cropped(scene: np.ndarray, side: int) -> tuple[np.ndarray, Pixels]:
    """An image that is as high as the model's input and wider, and the middle of it."""
    image = np.asarray(Image.fromarray(scene).resize((side + 24, side)))
    return image, image[:, 12 : 12 + side]


def whole(scene: np.ndarray, side: int) -> tuple[np.ndarray, Pixels]:
    """An image of the size of the model's input."""
    image = np.asarray(Image.fromarray(scene).resize((side, side)))
    return image, image


def write_shard(path: Path, images: list[tuple[np.ndarray, int]]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, (image, target) in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            for name, data in (("png", png.getvalue()), ("cls", str(target).encode())):
                member = tarfile.TarInfo(f"{number:04d}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def compare(
    run: Run,
    folder: Path,
    reference: Reference,
    shown: list[tuple[np.ndarray, Pixels, int]],
    flags: tuple[object, ...],
    method: str,
    first: int = 0,
) -> list[dict[str, Any]]:
    """Run the stage on the images; assert that counts and areas are the reference's.

    `first` is the id of the first class; targets and predictions are positions.
    """
    write_shard(folder / "images.tar", [(image, target + first) for image, _, target in shown])
    found = run("perturbation", "--input", folder / "images.tar", "--method", method, *flags)
    (path,) = (folder / "scores" / "counts").iterdir()
    expected = [counts_of(reference, method, pixels, target) for _, pixels, target in shown]
    rows = pq.read_table(path).drop_columns(["image"]).to_pylist()
    assert rows == expected
    clean = sum(row["predicted"] == row["target"] for row in expected) / len(expected)
    assert found["scores"]["accuracy"] == clean
    for curve in CURVES:
        after = [sum(row[curve][step] for row in expected) / len(expected) for step in range(9)]
        assert found["scores"]["curves"][curve] == after
        assert found["scores"]["auc"][curve] == pytest.approx(area(clean, after), abs=1e-12)
    return expected


@pytest.mark.parametrize("method", [pytest.param("legrad", marks=pytest.mark.long), "text_span"])
def test_a_clip(run: Run, tmp_path: Path, classes: str, method: str) -> None:
    reference = clip_reference()
    shown = []
    for number, scene in enumerate(bundled_scenes()[:3]):
        names = list(scene.masks)
        # Of some images the last class, or one that is not there: predicted and target differ.
        name = names[0] if number % 2 else names[-1] if number else NAMES[0]
        shown.append((*cropped(scene.image, reference.side), NAMES.index(name)))
    rows = compare(run, tmp_path, reference, shown, ("--classes", classes), method, first=1)
    assert len({row["predicted"] == row["target"] for row in rows}) == 2
    assert len({json.dumps(row[curve]) for row in rows for curve in CURVES}) > 4
    heat = reference.heat(method, shown[0][1], [0])[0]
    tied = sum(row.count(0.0) for row in heat)
    assert tied > 50 if method == "text_span" else tied >= 1  # it cuts its maps off at zero


def test_a_classifier(run: Run, tmp_path: Path, classifier: tuple[str, str]) -> None:
    reference = classifier_reference(classifier[1])
    shown = []
    for number, scene in enumerate(bundled_scenes()[:3]):
        image, pixels = whole(scene.image, reference.side)
        target = 400 * number if number == 2 else reference.answer(pixels)
        shown.append((image, pixels, target))
    flags = ("--model.name", classifier[0], "--model.pretrained", classifier[1])
    rows = compare(run, tmp_path, reference, shown, flags, "legrad")
    assert [row["predicted"] == row["target"] for row in rows] == [True, True, False]
    assert len({json.dumps(row[curve]) for row in rows for curve in CURVES}) > 2


def test_a_map_of_nothing_is_erased_line_by_line() -> None:
    pixels = np.full((10, 10, 3), 9, dtype=np.uint8)
    flat = [[0.0] * 10 for _ in range(10)]
    for sign in ("positive", "negative"):
        left = without_pixels(pixels, in_order(flat, sign), 3)
        assert (left[:3] == 0).all() and (left[3:] == 9).all()
