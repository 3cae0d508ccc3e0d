"""Which masks of a run are taken: the filters that exports, loaders and the report share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legrad.errors import near
from pipeline.config import since
from pipeline.errors import ConfigError
from pipeline.outputs.schema import calibrated

COLUMNS = (
    *("sample_index", "prompt_index", "category", "score"),
    *("raw_max", "area", "height", "width"),
)
"""Of `annotations/`, that it takes to select; see `SelectionConfig.columns` for one more."""
UNNAMED = "(caption)"
"""Stands for the category of masks that have none."""

Keep = Callable[[pa.Table], Any]
"""A table → an array of bools, whether a row stays."""
Dropped = Counter[tuple[str, str]]
"""(setting, category) → masks that it dropped."""


@dataclass(frozen=True)
class SelectionConfig:
    """Which masks are taken; each mask counts as dropped by the first setting that drops it."""

    categories: list[str] | None = None
    """Take only masks of these categories."""
    score: float | None = None
    """Least score, the cosine of image and text. Its levels differ from model to model: see the
    report."""
    probability: float | None = since(None, None)
    """Least probability that the thing is there, of runs with --prompts.calibration."""
    raw_max: float | None = None
    """Least maximum of the raw map."""
    min_area: float = 0.0
    """Least part of the image that a mask covers, 0 to 1."""
    max_area: float = 1.0
    """Largest part of the image that a mask covers, 0 to 1."""
    top_k: int | None = None
    """Take only so many masks of an image, those with the highest scores."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= self.max_area <= 1:
            raise ConfigError(
                f"--select.min_area {self.min_area} --select.max_area {self.max_area}: parts of "
                "the image, from 0 to 1, the smaller one first"
            )
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ConfigError(f"--select.probability {self.probability}: must lie between 0 and 1")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"--select.top_k {self.top_k}: must be at least 1")
        if self.categories is not None and not self.categories:
            raise ConfigError("--select.categories []: would take nothing; leave it out for all")

    @property
    def columns(self) -> tuple[str, ...]:
        """Of `annotations/`, that it takes to select so."""
        return (*COLUMNS, *(["probability"] if self.probability is not None else []))

    def check_run(self, identity: Mapping[str, Any]) -> None:
        """Refuse a setting that takes a column which a run does not have.

        Args:
            identity: the settings that made the run.

        Raises:
            ConfigError: the run has no probabilities.
        """
        if self.probability is not None and not calibrated(identity):
            raise ConfigError(
                f"--select.probability {self.probability}: the run has no probabilities; annotate "
                "with --prompts.calibration"
            )

    def check(self, names: Iterable[str]) -> None:
        """Refuse categories that a run does not have.

        Raises:
            ConfigError: one is not among `names`.
        """
        known = set(names)
        for name in self.categories or ():
            if name not in known:
                raise ConfigError(
                    f"--select.categories: the run has no {name!r}{near(name, sorted(known))}"
                )

    def select(self, table: pa.Table) -> tuple[pa.Table, Dropped]:
        """The masks to take, in their order, and what was dropped.

        Args:
            table: rows of `annotations/` of one shard, with `columns`.
        """
        dropped: Dropped = Counter()
        for setting, keep in self._filters():
            kept = keep(table)
            named = table.filter(pc.invert(kept))["category"].fill_null(UNNAMED)
            for entry in named.value_counts().to_pylist():
                dropped[setting, entry["values"]] += entry["counts"]
            table = table.filter(kept)
        return table, dropped

    def _filters(self) -> Iterator[tuple[str, Keep]]:
        """The settings that stand at something else than to take all, each with what it keeps."""
        if self.categories is not None:
            names = pa.array(self.categories, pa.string())
            yield "categories", lambda table: pc.is_in(table["category"], names)
        for name in ("score", "probability", "raw_max"):
            least = getattr(self, name)
            if least is not None:
                yield name, _at_least(name, least)
        if self.min_area > 0:
            yield "min_area", lambda table: pc.greater_equal(_covered(table), self.min_area)
        if self.max_area < 1:
            yield "max_area", lambda table: pc.less_equal(_covered(table), self.max_area)
        if self.top_k is not None:
            most = self.top_k
            yield "top_k", lambda table: pa.array(_ranks(table) < most)


def _at_least(column: str, least: float) -> Keep:
    return lambda table: pc.greater_equal(table[column], pa.scalar(least, pa.float32()))


def _covered(table: pa.Table) -> Any:
    """The part of its image that each mask covers."""
    pixels = pc.multiply(pc.cast(table["height"], pa.int64()), table["width"])
    return pc.divide(pc.cast(table["area"], pa.float64()), pixels)


def _ranks(table: pa.Table) -> np.ndarray:
    """The place of each mask among those of its image by falling score, from 0; ties by prompt."""
    images, prompts = (table[name].to_numpy() for name in ("sample_index", "prompt_index"))
    order = np.lexsort((prompts, -table["score"].to_numpy(), images))
    starts = np.flatnonzero(np.diff(images[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return ranks
