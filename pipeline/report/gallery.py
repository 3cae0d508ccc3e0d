"""The masks that are shown, with their pictures where the images can be read."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from legrad import HeatOrder
from pipeline import storage
from pipeline.errors import ShardError, one_line
from pipeline.inputs.shards import Shard, find_shards
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.outputs.schema import heat_order
from pipeline.report.config import ReportConfig
from pipeline.report.contents import cut
from pipeline.report.picks import Picks
from pipeline.report.pictures import Pictures, draw_masks

MOST_CHARACTERS = 4_000_000
"""Of all pictures together."""
FULL = f"others have taken the {MOST_CHARACTERS // 10**6} MB that pictures may have"
NOTES = 10

Place = tuple[int, int, int]
"""Number of the commit, sample index, prompt index."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A mask that is shown; what is no number is None, and so are pictures that a note is about."""

    shard: str
    key: str
    prompt_index: int
    prompt: str
    category: str | None
    score: float | None
    raw_max: float | None
    heat_mean: float | None
    area: float
    pictures: Pictures | None


@dataclass(frozen=True)
class Group:
    """Masks that are shown for one reason."""

    title: str
    caption: str
    masks: list[Shown]


@dataclass(frozen=True)
class Gallery:
    """What is shown, and what people have to know of what is not."""

    groups: list[Group]
    notes: list[str]


def hang_gallery(
    config: ReportConfig, predictions: Predictions, picks: Picks, classes: Sequence[tuple[int, str]]
) -> Gallery:
    """Read rows and images of the masks that were picked.

    Args:
        config: of the report.
        predictions: the run.
        picks: the masks.
        classes: number and name of those to show, in their order.

    Raises:
        ConfigError: a table cannot be read, or a pattern of --images matches nothing.
    """
    drawn = "of all shards"
    if len(picks.drawn) < sum(commit.masks > 0 for commit in predictions.commits):
        drawn = f"of {len(picks.drawn)} shards that were drawn, so that few have to be read"
    plan: list[tuple[str, str, list[Place]]] = [
        ("Random", f"What masks of this run look like: drawn from those {drawn}.",
         picks.random.of(0)),
        ("Highest score", "Where image and text agree most: the best that the run has.",
         picks.highest.of(0)),
        ("Lowest score", "Where they agree least, often because the thing is not there. If most of "
         "these are wrong, filter by score.", picks.lowest.of(0)),
        *((f"Class: {cut(name)}", "", picks.of_classes.of(code)) for code, name in classes),
    ]  # fmt: skip
    notes = _Notes()
    wanted = {place for _, _, places in plan for place in places}
    shown = dict(_shown(config, predictions, wanted, notes))
    groups = [
        Group(title, caption, [shown[place] for place in places])
        for title, caption, places in plan
        if places
    ]
    return Gallery(groups, notes.lines())


class _Notes:
    """Why there are no pictures of what, each reason once."""

    def __init__(self) -> None:
        self._of: dict[str, list[str]] = {}

    def add(self, what: str, reason: str) -> None:
        self._of.setdefault(reason, []).append(what)

    def lines(self) -> list[str]:
        """A line for every reason, the first ones."""
        lines = []
        for reason, what in list(self._of.items())[:NOTES]:
            others = f" and of {len(what) - 1} more like it" if len(what) > 1 else ""
            lines.append(f"No pictures of {cut(what[0])}{others}: {cut(reason)}")
        more = len(self._of) - len(lines)
        return lines + ([f"There are {more} more reasons like these"] if more else [])


def _shown(
    config: ReportConfig, predictions: Predictions, wanted: Iterable[Place], notes: _Notes
) -> Iterator[tuple[Place, Shown]]:
    """The masks at some places, shard by shard."""
    by_shard: dict[int, list[Place]] = defaultdict(list)
    for place in sorted(wanted):
        by_shard[place[0]].append(place)
    if not by_shard:
        return
    painter = _Painter(config, predictions.identity, notes)
    for number, places in by_shard.items():
        commit = predictions.commits[number]
        table = predictions.read(commit, ["sample_index"]).annotations
        rows = _rows(table, places)
        pictures = painter.draw(commit, rows, heat_order(table))
        for place, row in rows.items():
            yield place, _of(row, pictures.get(place))


class _Painter:
    """Draws masks until there is no room for more; what it cannot draw, it notes."""

    def __init__(self, config: ReportConfig, identity: Mapping[str, Any], notes: _Notes) -> None:
        self._located, self._notes = _Located(config), notes
        self._left = MOST_CHARACTERS
        self._identity = identity

    def draw(
        self, commit: Commit, rows: Mapping[Place, Row], order: HeatOrder
    ) -> dict[Place, Pictures]:
        """Pictures of some rows of a shard, as far as there are any."""
        by_sample: dict[int, list[Row]] = defaultdict(list)
        for row in rows.values():
            by_sample[row["sample_index"]].append(row)
        places = {place[1:]: place for place in rows}
        found: dict[Place, Pictures] = {}
        try:
            shard = self._located(commit)
            for row, drawn in draw_masks(shard, by_sample, order, self._identity):
                image = f"image {row['key']} in {commit.shard}"
                if isinstance(drawn, str):
                    self._notes.add(image, drawn)
                elif drawn.size > self._left:
                    self._notes.add(image, FULL)
                else:
                    self._left -= drawn.size
                    found[places[row["sample_index"], row["prompt_index"]]] = drawn
        except (OSError, ShardError) as error:
            self._notes.add(f"images in shard {commit.shard}", one_line(error))
        return found


def _rows(table: pa.Table, places: Sequence[Place]) -> dict[Place, Row]:
    """The rows at some places of a shard."""
    index = [table[name].to_numpy().astype(np.int64) for name in ("sample_index", "prompt_index")]
    found = index[0] << 32 | index[1]
    numbers = np.searchsorted(found, [sample << 32 | prompt for _, sample, prompt in places])
    return dict(zip(places, table.take(pa.array(numbers)).to_pylist(), strict=True))


def _of(row: Row, pictures: Pictures | None) -> Shown:
    return Shown(
        shard=row["shard"],
        key=cut(row["key"]),
        prompt_index=row["prompt_index"],
        prompt=cut(row["prompt"]),
        category=None if row["category"] is None else cut(row["category"]),
        score=_finite(row["score"]),
        raw_max=_finite(row["raw_max"]),
        heat_mean=_finite(row["heat_mean"]),
        area=row["area"] / (row["height"] * row["width"]),
        pictures=pictures,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Located:
    """Where the shards of a run are now."""

    def __init__(self, config: ReportConfig) -> None:
        self._root = config.input_root
        self._shards: dict[str, Shard] | None = None
        if config.patterns:
            found = find_shards(config.patterns, config.input_root, "--images")
            self._shards = {shard.name: shard for shard in found}

    def __call__(self, commit: Commit) -> Shard:
        if self._shards is not None:
            if commit.shard not in self._shards:
                raise ShardError(
                    "--images has no shard of that name; is --input_root that of the run?"
                )
            return self._shards[commit.shard]
        location = commit.uri
        if not storage.is_uri(location) and not os.path.isabs(location):
            if not self._root:
                raise ShardError(
                    "the shards lay below the run's --input_root; give --input_root, or --images"
                )
            location = storage.join(self._root, location)
        return Shard(location, commit.uri, commit.bytes)
