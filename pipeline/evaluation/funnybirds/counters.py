"""Counting the birds of a class: a model of a run is asked, and a method of it explains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

import legrad
from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, Reject
from pipeline.evaluation.counting import Counted, read_file
from pipeline.evaluation.funnybirds.dataset import Birds, Files, target_of
from pipeline.evaluation.funnybirds.protocols import (
    BIRD_COUNTS,
    Pixels,
    ReadAll,
    Subject,
    score_bird,
)
from pipeline.inputs.images import decode
from pipeline.inputs.reader import DECODE_THREADS
from pipeline.inputs.shards import Shard
from pipeline.models.classifier import class_layer
from pipeline.models.halving import halves, in_halves
from pipeline.models.loaded import Query
from pipeline.models.loading import load

MapKind: TypeAlias = Literal["auto", "raw", "minmax", "heat"]
Resize: TypeAlias = Literal["nearest", "model"]
RAW = ("rollout", "transformer_attribution")
"""Methods whose maps the authors' code takes as they are; those of its GradCAM are in 0..1."""


class ModelSubject:
    """A classifier of a run, and its method, as the authors' code uses them."""

    def __init__(self, config: RunConfig, classes: int, maps: MapKind, resize: Resize) -> None:
        """Load the model; see `load` for what may go wrong.

        Args:
            config: of the run.
            classes: of the data set.
            maps: what an attribution is, see `FunnyBirdsConfig`.
            resize: how images become those of the model, likewise.

        Raises:
            ConfigError: the model has other classes.
        """
        self._model = load(config)
        name = config.model.name
        known = class_layer(self._model.model, name).out_features
        if known != classes:
            raise ConfigError(
                f"--model.pretrained: {classes} classes in --data, but the head of {name} has "
                f"{known}; give weights that were trained on FunnyBirds"
            )
        self._explainer = self._model.explainer()
        self._head = self._model.head(range(classes), [str(number) for number in range(classes)])
        self._batch, self._resize = config.engine.batch_size, resize
        auto: MapKind = "raw" if config.method in RAW else "minmax"
        self._maps = auto if maps == "auto" else maps

    def logits(self, images: Sequence[Tensor]) -> tuple[Float64[np.ndarray, "image class"], bool]:
        """Of RGB pixels [3, height, width] each, and whether a batch had to be made smaller."""
        found: list[Tensor] = []
        degraded = False
        for start in range(0, len(images), self._batch):
            fitted = [self._fit(image) for image in images[start : start + self._batch]]
            with self._model.lock:
                parts = in_halves(fitted, self._of_batch, halves, self._model.device)
            found += [logits for _, logits, _ in parts]
            degraded |= any(halved for _, _, halved in parts)
        return torch.stack(found).double().numpy(), degraded

    def attributions(
        self, image: Pixels, classes: Sequence[int]
    ) -> tuple[Float[Tensor, "class height width"], bool]:
        """A map of each class, at the size of the image; and whether they were made in parts."""
        query = Query(self._fit(image), self._head.rows[list(classes)])
        with self._model.lock:
            (explanation,) = self._model.explain(self._explainer, [query])
        raw, size = explanation.raw, (image.shape[1], image.shape[2])
        if self._maps == "heat":
            maps = legrad.heatmap(raw, size, order=self._explainer.heat_order)
        else:
            grid = legrad.minmax(raw) if self._maps == "minmax" else raw
            maps = F.interpolate(grid[None].float(), size, mode="nearest")[0]
        return maps.cpu(), explanation.degraded

    def _fit(self, image: Pixels) -> UInt8[Tensor, "3 side side"]:
        if self._resize == "model":
            return self._model.fit(image)
        size = (self._model.size, self._model.size)
        return F.interpolate(image[None], size, mode="nearest")[0]

    def _of_batch(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The logits of some images, each on the CPU."""
        embeddings = self._model.embed(self._model.images(torch.stack([*images])))
        return list((embeddings @ self._head.rows.T + self._head.bias).cpu())


class BirdCounter:
    """Scores every image of a class, and what is left of it without its parts."""

    SCHEMA = BIRD_COUNTS

    def __init__(
        self,
        config: RunConfig,
        root: str,
        corrected: bool,
        make_subject: Callable[[int], Subject],
    ) -> None:
        """Read the data set and make the subject; see `Birds.load` for what may go wrong.

        Args:
            config: of the run.
            root: of the data set.
            corrected: without the slips of the authors' code, see `Birds`.
            make_subject: makes what is scored, of the number of classes.
        """
        self._birds, self._files = Birds.load(root), Files(root)
        self._corrected, self._limit = corrected, config.limit_samples
        self._max_pixels = config.max_pixels
        self._threads = max(DECODE_THREADS, config.engine.cpu_threads())
        self._subject = make_subject(len(self._birds.classes))

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Score every image of a class."""
        counted = Counted()
        target = target_of(shard)
        of_class = (bird for bird in self._birds.birds if bird.target == target)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            for bird in islice(of_class, self._limit):
                read = self._reader(pool)
                try:
                    with counted.clock.measure("model"):
                        scored = score_bird(
                            bird, self._birds, self._files, self._subject, read, self._corrected
                        )
                except Reject as reject:
                    image = f"test/{target}/{bird.name}.png"
                    counted.leave_out(image, reject, image=image)
                else:
                    counted.statuses["scored"] += 1
                    counted.rows.append(scored.row)
                    counted.degraded |= scored.degraded
                    counted.prompts += scored.maps
                    counted.masks += scored.maps
                on_images(1)
        return counted

    def _reader(self, pool: ThreadPoolExecutor) -> ReadAll:
        """Reads the images of one bird, which have one size."""
        shapes: list[torch.Size] = []

        def read(locations: Sequence[str]) -> list[Tensor]:
            images = list(pool.map(self._read, locations))
            for location, image in zip(locations, images, strict=True):
                shapes.append(image.shape)
                if image.shape != shapes[0]:
                    first, other = (f"{shape[2]}x{shape[1]}" for shape in (shapes[0], image.shape))
                    what = f"{storage.public(location)}: {other} pixels, and the image {first}"
                    raise Reject("other_size", what)
            return images

        return read

    def _read(self, location: str) -> Tensor:
        data = read_file(location, storage.public(location))
        try:
            return decode(data, self._max_pixels)
        except Reject as reject:
            raise Reject(reject.reason, f"{storage.public(location)}: {reject.detail}") from reject
