"""Point-wise mIoU (p-mIoU): masks scored by yes/no point labels, as in OpenImages V7.

The definition is the foreground IoU per class, summed over images, then the mean over classes.
Counts are the state, so shards and processes merge by addition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool
from pyarrow import csv

from pipeline import storage
from pipeline.masks import RLE, decode


class Point(NamedTuple):
    """A point that people (or a ground-truth mask) said is on the class, or is not.

    Attributes:
        x: 0 (left edge) to 1 (right edge) of the image.
        y: 0 (top edge) to 1 (bottom edge) of the image.
        yes: whether the class is there.
    """

    x: float
    y: float
    yes: bool


def pixel_of(point: Point, height: int, width: int) -> tuple[int, int]:
    """Row and column of the pixel under `point`; the right and bottom edges belong to the last."""
    return min(int(point.y * height), height - 1), min(int(point.x * width), width - 1)


@dataclass
class PointCounts:
    """True positives, false positives and false negatives per class."""

    tp: Counter[str] = field(default_factory=Counter)
    fp: Counter[str] = field(default_factory=Counter)
    fn: Counter[str] = field(default_factory=Counter)

    def update(
        self, name: str, mask: Bool[np.ndarray, "height width"] | None, points: Iterable[Point]
    ) -> None:
        """Count the points of one (image, class) pair; `mask=None` predicts nothing anywhere."""
        for point in points:
            predicted = mask is not None and bool(mask[pixel_of(point, *mask.shape)])
            if point.yes and predicted:
                self.tp[name] += 1
            elif point.yes:
                self.fn[name] += 1
            elif predicted:
                self.fp[name] += 1

    def __add__(self, other: PointCounts) -> PointCounts:
        return PointCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    def iou(self) -> dict[str, float]:
        """IoU in 0..1 of every class that has a yes point."""
        classes = sorted(set(self.tp) | set(self.fn))
        return {
            c: self.tp[c] / (self.tp[c] + self.fp[c] + self.fn[c])
            for c in classes
            if self.tp[c] + self.fn[c]
        }

    def p_miou(self) -> float:
        """Mean of `iou` over classes, 0..1; NaN when no class has a yes point."""
        values = list(self.iou().values())
        return sum(values) / len(values) if values else float("nan")


ARROW_TYPES = {str: pa.string(), float: pa.float64()}

Points = dict[tuple[str, str], list[Point]]
"""(image id, class name) → its points."""


def read_points(points: Path, descriptions: Path) -> Points:
    """Point labels in the CSV layout of OpenImages V7, with names for their labels.

    Rows that are neither yes nor no are left out. Of the rows about one point, one counts if they
    agree, and none if they do not. Columns are found by name.

    Args:
        points: a file with ImageId, X, Y, Label and EstimatedYesNo.
        descriptions: a file with LabelName and DisplayName.
    """
    display = dict(zip(*_columns(descriptions, LabelName=str, DisplayName=str), strict=True))
    answers: dict[tuple[str, str], dict[tuple[float, float], set[bool]]] = {}
    columns = _columns(points, ImageId=str, Label=str, X=float, Y=float, EstimatedYesNo=str)
    for image, label, x, y, answer in zip(*columns, strict=True):
        if answer.lower() in ("yes", "no"):
            of_pair = answers.setdefault((image, display[label]), {})
            of_pair.setdefault((x, y), set()).add(answer.lower() == "yes")
    return {
        pair: [Point(*place, *said) for place, said in of_pair.items() if len(said) == 1]
        for pair, of_pair in answers.items()
    }


def _columns(path: Path, **types: type) -> list[list[Any]]:
    """Columns of a CSV file. Their types are told: an image id may look like a number."""
    arrow = {name: ARROW_TYPES[kind] for name, kind in types.items()}
    options = csv.ConvertOptions(include_columns=list(types), column_types=arrow)
    table = csv.read_csv(path, convert_options=options)
    return [table[name].to_pylist() for name in types]


def score_annotations(output: str, points: Points) -> tuple[PointCounts, PointCounts]:
    """Counts of the masks in an annotation output, and of masks that cover everything.

    Only pairs with a yes point count; a pair without a mask predicts nothing.

    Args:
        output: location of a run's results; image ids are the keys of its samples.
        points: as `read_points` gives them.
    """
    masks, control = PointCounts(), PointCounts()
    wanted = {pair: of_pair for pair, of_pair in points.items() if any(p.yes for p in of_pair)}
    missing = set(wanted)
    for pair, segmentation in _segmentations(output):
        if pair in missing:
            missing.remove(pair)
            masks.update(pair[1], decode(segmentation), wanted[pair])
    for pair in missing:
        masks.update(pair[1], None, wanted[pair])
    everything = np.ones((1, 1), dtype=bool)
    for (_, name), of_pair in wanted.items():
        control.update(name, everything, of_pair)
    return masks, control


def _segmentations(output: str) -> Iterator[tuple[tuple[str, str], RLE]]:
    """((key, category), mask) of every row of a run."""
    filesystem, path = storage.resolve(storage.join(output, "annotations"))
    table = pq.read_table(path, columns=["key", "category", "segmentation"], filesystem=filesystem)
    for batch in table.to_batches():
        for row in batch.to_pylist():
            yield (row["key"], row["category"]), row["segmentation"]
