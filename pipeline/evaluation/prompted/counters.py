"""Scores a class at a time: its images and sounds are read, and its maps pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from pipeline import storage
from pipeline.errors import Reject
from pipeline.evaluation.counting import Counted, read_file
from pipeline.evaluation.prompted.config import PromptedConfig
from pipeline.evaluation.prompted.hearing import vector_of
from pipeline.evaluation.prompted.scores import CLASS_COUNTS, class_row, pooled
from pipeline.evaluation.prompted.tree import (
    Row,
    check_length,
    class_of,
    fit,
    label_name,
    read_label,
    read_table,
)
from pipeline.inputs.images import decode
from pipeline.inputs.look_ahead import map_ahead
from pipeline.inputs.reader import DECODE_THREADS
from pipeline.inputs.shards import Shard
from pipeline.inputs.sounds import Sound, read_sound
from pipeline.models.loaded import Query
from pipeline.models.loading import LoadedClip

LONGEST = 3600.0
"""Seconds; of a sound, no more than the first 10.26 are heard."""


@dataclass(frozen=True)
class Scene:
    """A row that can be scored.

    Attributes:
        row: of the table.
        pixels: the middle of the image.
        truth: where the class is.
        sound: to look for.
    """

    row: Row
    pixels: UInt8[Tensor, "3 size size"]
    truth: Bool[Tensor, "size size"]
    sound: Sound


class LeftOut(NamedTuple):
    """A row that cannot be scored, and why."""

    row: Row
    reject: Reject


def leave_out(counted: Counted, left: LeftOut) -> None:
    """Count a row as one that cannot be scored, and say which one it is."""
    image, number = left.row.image, left.row.number
    counted.leave_out(f"{image}, class {number}", left.reject, image=image, number=number)


class ClassCounter:
    """Explains every image of a class by its sound."""

    SCHEMA = CLASS_COUNTS

    def __init__(self, config: PromptedConfig) -> None:
        """Load the model; see `LoadedClip` for what may go wrong."""
        self._config = config
        self._rows = read_table(config.root, config.kind).rows
        self._model = LoadedClip(config)
        self._explainer = None if config.maps == "tokens" else self._model.explainer()
        if self._explainer is None:
            self._model.check_size(self._model.patches)
        self._encode = self._model.encode_sound

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Score a class. Its pooled scores and truths are in memory: 5 bytes a pixel."""
        counted = Counted()
        number = class_of(shard)
        maps: list[Tensor] = []
        truths: list[np.ndarray] = []
        for batch in self._batches(self._rows[number], counted):
            found = self._explain(batch, counted)
            maps += [heat for heat, _ in found]
            truths += [truth.flatten().numpy() for _, truth in found]
            on_images(len(batch))
        if maps:
            size = self._model.size
            scores = pooled(maps, size, self._config.normalisation)
            counted.rows.append(class_row(number, scores, np.concatenate(truths), len(maps)))
        return counted

    def _batches(self, rows: Sequence[Row], counted: Counted) -> Iterator[list[Scene]]:
        size = self._config.engine.batch_size

        def read_row(row: Row) -> Scene | LeftOut:
            with counted.clock.measure("decode"):
                return self._read(row)

        with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as pool:
            batch: list[Scene] = []
            for read in map_ahead(pool, read_row, rows[: self._config.limit_samples], 2 * size):
                if isinstance(read, LeftOut):
                    leave_out(counted, read)
                    continue
                batch.append(read)
                if len(batch) == size:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _read(self, row: Row) -> Scene | LeftOut:
        try:
            pixels = decode(self._bytes("frames", row.image), self._config.max_pixels)
            shape = (pixels.shape[1], pixels.shape[2])
            check_length(*shape)
            label = self._bytes("annotations", label_name(row.image))
            truth = read_label(label, row.number, self._model.size, shape, self._config.max_pixels)
            sound = read_sound(self._bytes("audio", row.sound), row.sound, LONGEST)
        except Reject as reject:
            return LeftOut(row, reject)
        return Scene(row, fit(pixels, self._model.size), truth, sound)

    def _bytes(self, folder: str, name: str) -> bytes:
        location = storage.join(self._config.root, folder, *name.split("/"))
        return read_file(location, f"{folder}/{name}")

    def _explain(
        self, batch: Sequence[Scene], counted: Counted
    ) -> list[tuple[Float[Tensor, "rows columns"], Bool[Tensor, "size size"]]]:
        """The map and the truth of every scene whose sound can be heard."""
        config = self._config
        with self._model.lock, counted.clock.measure("model"):
            there: list[tuple[Scene, Tensor]] = []
            for scene in batch:
                try:
                    vector = vector_of(
                        self._encode, scene.sound, scene.row, config.maps, config.heard, config.crop
                    )
                except Reject as reject:
                    leave_out(counted, LeftOut(scene.row, reject))
                    continue
                there.append((scene, vector))
            counted.statuses["scored"] += len(there)
            counted.prompts += len(there)
            counted.masks += len(there)
            if not there:
                return []
            truths = [scene.truth for scene, _ in there]
            if self._explainer is None:
                images = self._model.images(torch.stack([scene.pixels for scene, _ in there]))
                vectors = torch.stack([vector for _, vector in there])
                patches = self._model.patches(images)
                maps = torch.einsum("brce,be->brc", patches, vectors).cpu()
                return list(zip(maps, truths, strict=True))
            queries = [Query(scene.pixels, vector[None]) for scene, vector in there]
            explained = self._model.explain(self._explainer, queries)
        counted.degraded |= any(found.degraded for found in explained)
        return [(f.raw[0].cpu(), t) for f, t in zip(explained, truths, strict=True)]
