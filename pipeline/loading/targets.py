"""What is known of the images of a shard, as torchvision's v2 transforms take it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool
from pycocotools import mask as coco
from torch import Tensor
from torchvision import tv_tensors

from pipeline.errors import ConfigError
from pipeline.outputs import selection
from pipeline.outputs.masks import RLE
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.outputs.schema import PROBABILITY, calibrated, heat_order
from pipeline.outputs.selection import UNNAMED, SelectionConfig
from pipeline.outputs.semantic import SemanticConfig, semantic_map

IMAGES = ("sample_index", "key", "image_id", "height", "width", "status")
INSTANCES = (*selection.COLUMNS, "bbox", "segmentation")
"""Of the tables, what targets of instances take."""

NONE = slice(0, 0)
Target = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """A row of `images/` that was not rejected; `key` is that of WebDataset."""

    key: str
    image_id: int
    height: int
    width: int


class ShardTargets:
    """The masks of a shard that are taken, by image.

    Attributes:
        images: those that a loader gives, by their position in the shard, in order.
        repeated: keys that come more than once in the shard, rejected samples included.
    """

    def __init__(
        self,
        images: dict[int, Image],
        masks: pa.Table,
        labels: Mapping[str, int],
        repeated: frozenset[str] = frozenset(),
    ) -> None:
        """Sort masks by image.

        Args:
            images: by their position in the shard.
            masks: rows of `annotations/` of the shard, in its order.
            labels: number of every category that a mask may have.
            repeated: see above.
        """
        self.images, self.repeated = images, repeated
        self._labels, self._masks = labels, masks
        indices, starts = np.unique(masks["sample_index"].to_numpy(), return_index=True)
        bounds = [*starts.tolist(), len(masks)]
        self._parts = {
            index: slice(*bounds[place : place + 2]) for place, index in enumerate(indices.tolist())
        }
        self._columns: dict[str, Any] = {}

    def rows(self, index: int) -> list[dict[str, Any]]:
        """The masks of an image as rows."""
        part = self._parts.get(index, NONE)
        found = self._masks.slice(part.start, part.stop - part.start)
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows

    def semantic(
        self, index: int, size: tuple[int, int] | None, config: SemanticConfig
    ) -> tv_tensors.Mask:
        """The label of every pixel, uint8 [height, width]; `size` where not the image's own."""
        image = self.images[index]
        size = size or (image.height, image.width)
        order = heat_order(self._masks)
        made = semantic_map(self.rows(index), self._labels, size, config, order)
        return tv_tensors.Mask(torch.from_numpy(made))

    def instances(self, index: int) -> Target:
        """Boxes, labels, scores, run lengths and, if known, probabilities of an image's masks."""
        part = self._parts.get(index, NONE)
        if not self._columns:
            self._columns = self._as_tensors()
        image = self.images[index]
        return {
            "boxes": tv_tensors.BoundingBoxes(
                self._columns["boxes"][part].clone(),  # a view would bring the shard along
                format=tv_tensors.BoundingBoxFormat.XYXY,
                canvas_size=(image.height, image.width),
            ),
            "labels": self._columns["labels"][part].clone(),
            **{
                name: self._columns[name][part].clone()
                for name in ("scores", "probabilities")
                if name in self._columns
            },
            "segmentation": self._columns["segmentation"][part],
        }

    def _as_tensors(self) -> dict[str, Any]:
        """The columns of all images, which are cut for each: far sooner than one by one."""
        boxes = np.array(self._masks["bbox"].to_pylist(), dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        names = self._masks["category"].fill_null(UNNAMED).to_pylist()
        likely = {}
        if PROBABILITY.name in self._masks.column_names:
            values = self._masks[PROBABILITY.name].to_pylist()
            likely["probabilities"] = torch.tensor(values, dtype=torch.float32)
        return likely | {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.tensor([self._labels[name] for name in names], dtype=torch.int64),
            "scores": torch.tensor(self._masks["score"].to_pylist(), dtype=torch.float32),
            "segmentation": self._masks["segmentation"].to_pylist(),
        }


@dataclass(frozen=True)
class TargetReader:
    """Reads what a run has written of a shard.

    Attributes:
        predictions: the run.
        labels: number of every category, from 1; see `dense_labels`.
        select: which masks are taken.
        semantic: also read what it takes to give every pixel one label.
        keep_empty: give images without a mask, too.
    """

    predictions: Predictions
    labels: Mapping[str, int]
    select: SelectionConfig
    semantic: bool = False
    keep_empty: bool = True

    def __call__(self, commit: Commit) -> ShardTargets:
        """The targets of a shard.

        Raises:
            ConfigError: its tables cannot be read.
        """
        likely = [PROBABILITY.name] if calibrated(self.predictions.identity) else []
        wanted = list(dict.fromkeys((*INSTANCES, *likely, *self.select.columns)))
        shard = self.predictions.read(commit, IMAGES, None if self.semantic else wanted)
        masks, _ = self.select.select(shard.annotations)
        with_masks = set(masks["sample_index"].to_pylist())
        images = {
            row["sample_index"]: Image(row["key"], row["image_id"], row["height"], row["width"])
            for row in shard.images.to_pylist()
            if row["status"] != "rejected"
            and (self.keep_empty or row["sample_index"] in with_masks)
        }
        times = Counter(shard.images["key"].to_pylist())
        repeated = frozenset(key for key, count in times.items() if count > 1)
        return ShardTargets(images, masks, self.labels, repeated)


def dense_labels(
    predictions: Predictions, select: SelectionConfig, config: SemanticConfig | None
) -> dict[str, int]:
    """The number of every category that is taken: 1..K by name.

    Masks of captions, which have no category, are all of the one class `UNNAMED`.

    Args:
        predictions: the run.
        select: with the categories that are taken, if not all.
        config: of semantic maps, where background categories are 0.

    Raises:
        ConfigError: a category that the run does not have, or none for a semantic map.
    """
    of_captions = predictions.identity["prompts"]["source"] == "caption"
    known = [UNNAMED] if of_captions else list(predictions.categories.values())
    select.check_run(predictions.identity)
    select.check(known)
    names = known if select.categories is None else select.categories
    if config is None:
        return {name: number for number, name in enumerate(sorted(set(names)), 1)}
    if of_captions:
        raise ConfigError(f"semantic: {predictions} is of captions, which have no categories")
    return config.labels(set(names))


def decode_masks(
    segmentation: Sequence[RLE], height: int, width: int
) -> Bool[Tensor, "mask {height} {width}"]:
    """The pixels of some masks of an image; of none, [0, height, width].

    They lie in memory as they are stored, down the columns: to turn them takes longer than all
    the rest. `contiguous()` does.
    """
    if not segmentation:
        return torch.zeros((0, height, width), dtype=torch.bool)
    rles: Any = list(segmentation)  # the stubs want `counts` to be mutable to bytes
    pixels: np.ndarray = coco.decode(rles)  # [height, width, mask], down the columns
    return torch.from_numpy(pixels.transpose(2, 1, 0)).view(torch.bool).transpose(1, 2)
