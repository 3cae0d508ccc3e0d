"""One PNG per image with the label of every pixel, as semantic segmentation is trained from."""

from __future__ import annotations

import io
import json
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

import legrad
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.export.config import ExportConfig
from pipeline.export.instances import Selected
from pipeline.export.pictures import Picture
from pipeline.export.run import Format
from pipeline.export.state import State
from pipeline.inputs.look_ahead import map_ahead
from pipeline.outputs import semantic
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.outputs.schema import RAW_MIN, heat_order
from pipeline.outputs.semantic import BACKGROUND, IGNORE, SemanticConfig, semantic_map

CREAM = (224, 224, 192)
"""Of what is ignored, as borders are in VOC's pictures."""
WRITERS = 4
"""Threads, which wait for the disk or the store."""
FAST = 1
"""zlib's level: of maps with few labels, higher ones make little of much time."""
LARGEST = 16384
"""Of --size: a map of so many pixels squared takes some GB."""


@dataclass(frozen=True)
class SemanticExportConfig(ExportConfig):
    """Label maps: 8-bit grey PNGs, 0 background, 1..K classes by name, 255 ignored."""

    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    """Which pixel gets which label."""
    size: int | None = None
    """Longer side of the maps in pixels; without it, maps are as large as their images."""
    colour: bool = False
    """Also write maps in colours: the grey ones look black."""

    FORMAT: ClassVar[str] = "semantic"
    BY_STEM: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and not 1 <= self.size <= LARGEST:
            raise ConfigError(f"--size {self.size}: must be from 1 to {LARGEST}")
        if self.instances != "one":
            raise ConfigError("--instances: has no effect here, where a pixel has one label")

    def identity(self) -> dict[str, Any]:
        """With the level that holds where none is given."""
        return super().identity() | {"level": self.semantic.least}


class Semantic(Format[SemanticExportConfig]):
    """`masks/`, `colour/` and `labels.json`."""

    def __init__(
        self,
        config: SemanticExportConfig,
        predictions: Predictions,
        categories: Sequence[str],
        state: State,
    ) -> None:
        """Number the labels.

        Raises:
            ConfigError: see `SemanticConfig.check` and `labels`.
        """
        super().__init__(config, predictions, categories, state)
        self.rule = config.semantic.of_run(predictions.identity)
        self.labels = config.semantic.labels(categories)

    @property
    def columns(self) -> Sequence[str]:
        """Heat, in the order that the run's method makes it."""
        clips = legrad.clips(self.predictions.identity["method"])
        return (*semantic.COLUMNS, *([RAW_MIN.name, "raw_max"] if clips else []))

    def last_files(self) -> Sequence[str]:
        """What the labels mean."""
        return ["labels.json"]

    def write_shard(self, selected: Selected) -> Counter[str]:
        """A map per image, also where all of it is background."""
        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in map_ahead(pool, self._write, self._maps(selected), 2 * WRITERS):
                pass
        return Counter()

    def finish(self, commits: Sequence[Commit]) -> None:
        """The names of the labels, the background first, as mmsegmentation's metainfo wants it."""
        things = [name for name, label in self.labels.items() if label != BACKGROUND]
        content = {
            "classes": ["background", *things],
            "background": self.config.semantic.prompts or [],
            "ignore_index": IGNORE,
            "palette": palette()[: len(things) + 1].tolist(),
        }
        data = json.dumps(content, ensure_ascii=False, indent=1).encode()
        storage.write_bytes(self.state.path("labels.json"), data)

    def _maps(self, selected: Selected) -> Iterator[tuple[Picture, UInt8[np.ndarray, "h w"]]]:
        order = heat_order(selected.masks)
        rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in selected.masks.to_pylist():
            rows[row["sample_index"]].append(row)
        for picture in selected.pictures:
            size = fitted(picture, self.config.size)
            found = rows.get(picture.sample, [])
            yield picture, semantic_map(found, self.labels, size, self.rule, order)

    def _write(self, made: tuple[Picture, UInt8[np.ndarray, "h w"]]) -> None:
        picture, labels = made
        self._write_png("masks", picture, Image.fromarray(labels))
        if self.config.colour:
            coloured = Image.fromarray(labels)
            coloured.putpalette(palette().tobytes())
            self._write_png("colour", picture, coloured)

    def _write_png(self, folder: str, picture: Picture, image: Image.Image) -> None:
        encoded = io.BytesIO()
        image.save(encoded, "PNG", compress_level=FAST)
        path = posixpath.join(folder, picture.part, f"{picture.stem}.png")
        storage.write_bytes(self.state.path(path), encoded.getvalue())


def fitted(picture: Picture, longer: int | None) -> tuple[int, int]:
    """Height and width of a map: with the proportions of its image."""
    height, width = picture.height, picture.width
    if longer is None:
        return height, width
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def palette() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colours: the bits of a label, three at a time, are the high bits of red, green, blue.

    Source: the VOC2012 development kit's `VOClabelcolormap`.
    """
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (labels >> (3 * place + channel)) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    colours[IGNORE] = CREAM
    return colours
