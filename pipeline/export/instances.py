"""The masks of a shard that an export takes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.export import components
from pipeline.export.config import ExportConfig
from pipeline.export.pictures import Picture, read_pictures
from pipeline.outputs import selection
from pipeline.outputs.masks import RLE
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.outputs.schema import PROBABILITY, calibrated
from pipeline.outputs.selection import UNNAMED, Dropped

COLUMNS = (*selection.COLUMNS, "bbox", "segmentation")
"""Of `annotations/`, that every format needs."""


class Instance(NamedTuple):
    """An object: a mask, or a part of one.

    Attributes:
        sample: position of its image in the shard.
        category: 1 to the number of categories, by name.
        name: of the category.
        score: cosine of image and text.
        area: pixels.
        bbox: tight x, y, width, height in pixels.
        segmentation: run lengths.
        probability: that it is there, 0..1; None in runs without a calibration.
    """

    sample: int
    category: int
    name: str
    score: float
    area: int
    bbox: list[float]
    segmentation: RLE
    probability: float | None = None

    @property
    def likely(self) -> dict[str, float]:
        """The probability as a key of a record; none where there is none."""
        return {} if self.probability is None else {"probability": self.probability}


@dataclass(frozen=True)
class Selected:
    """What an export takes of a shard.

    Attributes:
        commit: its record.
        pictures: all that could be read, in order.
        masks: rows of `annotations/` that were taken, each with a category.
        instances: the objects in them, by image.
        dropped: what was not taken.
    """

    commit: Commit
    pictures: list[Picture]
    masks: pa.Table
    instances: dict[int, list[Instance]]
    dropped: Dropped


def categories_of(predictions: Predictions, config: ExportConfig) -> list[str]:
    """The names of an export's categories; the first has number 1.

    Raises:
        ConfigError: --select.categories has one that the run has not.
    """
    known = set(predictions.categories.values())
    config.select.check_run(predictions.identity)
    config.select.check(known)
    names = known if config.select.categories is None else set(config.select.categories)
    return sorted(names | ({config.caption_category} - {""}))


def select(
    predictions: Predictions,
    commit: Commit,
    config: ExportConfig,
    categories: Sequence[str],
    columns: Iterable[str] = (),
) -> Selected:
    """Read a shard.

    Args:
        predictions: the run.
        commit: of the shard.
        config: says what is taken.
        categories: all names, in the order of their numbers.
        columns: of `annotations/` that are needed beside `COLUMNS`.

    Raises:
        ConfigError: a table cannot be read.
    """
    likely = [PROBABILITY.name] if calibrated(predictions.identity) else []
    wanted = list(dict.fromkeys((*COLUMNS, *likely, *config.select.columns, *columns)))
    table, dropped = config.select.select(predictions.read(commit, [], wanted).annotations)
    unnamed = pc.is_null(table["category"])
    if config.caption_category:
        named = table["category"].fill_null(config.caption_category)
        table = table.set_column(table.column_names.index("category"), "category", named)
    elif captions := pc.sum(unnamed).as_py():
        dropped["caption_category", UNNAMED] += captions
        table = table.filter(pc.invert(unnamed))
    instances: dict[int, list[Instance]] = defaultdict(list)
    for instance in _instances(table, config, categories, dropped):
        instances[instance.sample].append(instance)
    pictures = list(read_pictures(predictions, commit, config))
    return Selected(commit, pictures, table, instances, dropped)


def _instances(
    table: pa.Table, config: ExportConfig, categories: Sequence[str], dropped: Dropped
) -> Iterator[Instance]:
    numbers = {name: number for number, name in enumerate(categories, 1)}
    names, scores, areas, heights, widths, samples = (
        table[column].to_pylist()
        for column in ("category", "score", "area", "height", "width", "sample_index")
    )
    # Taken apart by Arrow: rows with lists and structs in them take ten times as long.
    boxes = pc.list_flatten(table["bbox"]).to_numpy().reshape(-1, 4).astype(float).tolist()
    counts = pc.struct_field(table["segmentation"], "counts").to_pylist()
    likely: list[float | None] = [None] * len(table)
    if PROBABILITY.name in table.column_names:
        likely = table[PROBABILITY.name].to_pylist()
    columns = (samples, names, scores, areas, boxes, heights, widths, counts, likely)
    for sample, name, score, area, bbox, height, width, runs, chance in zip(*columns, strict=True):
        segmentation: RLE = {"size": [height, width], "counts": runs}
        whole = Instance(sample, numbers[name], name, score, area, bbox, segmentation, chance)
        if config.instances == "one":
            yield whole
            continue
        parts = components.split(segmentation, bbox, config.part_area)
        if not parts:
            dropped["part_area", name] += 1
        for part in parts:
            yield whole._replace(**part._asdict())


def taken(selected: Selected) -> Counter[str]:
    """Objects by the name of their category."""
    found = selected.instances.values()
    return Counter(instance.name for of_image in found for instance in of_image)
