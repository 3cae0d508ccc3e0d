"""Which masks are shown: drawn at random or by score, from a stream of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.outputs.predictions import ShardMasks
from pipeline.outputs.records import Commit
from pipeline.report.config import ReportConfig
from pipeline.report.statistics import Classes
from pipeline.storage import digests

DRAWN = 12
"""Shards that random masks are of: for each, all of a tar has to be read."""


@dataclass
class Smallest:
    """The rows with the smallest keys in every group, of all that were added.

    Attributes:
        most: rows kept of a group.
        groups: of the rows that are kept, rising.
        keys: theirs, rising within a group; of equal ones, those that came first.
        rows: [row, 3] number of the shard, sample index, prompt index.
    """

    most: int
    groups: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    keys: np.ndarray = field(default_factory=lambda: np.empty(0))
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int64))

    def add(self, groups: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> None:
        """Add some rows."""
        groups = np.concatenate([self.groups, groups])
        keys = np.concatenate([self.keys, keys])
        rows = np.concatenate([self.rows, rows])
        order = np.lexsort((keys, groups))
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        sizes = np.diff(starts, append=len(order))
        ranks = np.arange(len(order)) - np.repeat(starts, sizes)
        kept = order[ranks < self.most]
        self.groups, self.keys, self.rows = groups[kept], keys[kept], rows[kept]

    def of(self, group: int) -> list[tuple[int, int, int]]:
        """The rows that a group keeps, by their key."""
        return [(int(a), int(b), int(c)) for a, b, c in self.rows[self.groups == group]]


class Picks:
    """The masks to show, of all shards that were added.

    At random: a key is drawn for every mask, and the smallest win, which is a sample without
    replacement however many masks there are.

    Attributes:
        random: masks of the shards that were drawn.
        highest: by score.
        lowest: by score.
        of_classes: masks of the shards that were drawn; the group is the class.
    """

    def __init__(self, config: ReportConfig, classes: Classes, commits: Sequence[Commit]) -> None:
        self._seed, self._classes = config.seed, classes
        self._numbers = {commit.shard: number for number, commit in enumerate(commits)}
        with_masks = [commit.shard for commit in commits if commit.masks]
        self.drawn = frozenset(sorted(with_masks, key=self._lot)[:DRAWN])
        self.random, self.highest, self.lowest = (Smallest(config.examples) for _ in range(3))
        self.of_classes = Smallest(config.examples_per_class)

    def add(self, shard: ShardMasks) -> None:
        """Look at the masks of a shard."""
        table, name = shard.annotations, shard.commit.shard
        columns = (table[column].to_numpy() for column in ("sample_index", "prompt_index"))
        number = np.full(len(table), self._numbers[name], np.int64)
        rows = np.stack([number, *columns], axis=1).astype(np.int64)
        score = table["score"].to_numpy().astype(np.float64)
        finite, all_one = np.isfinite(score), np.zeros(len(table), np.int64)
        for kept, keys in ((self.highest, -score), (self.lowest, score)):
            kept.add(all_one[finite], keys[finite], rows[finite])
        if name in self.drawn:
            keys = np.random.default_rng(int(self._lot(name), 16)).random(len(table))
            self.random.add(all_one, keys, rows)
            self.of_classes.add(self._classes.codes(table), keys, rows)

    def _lot(self, shard: str) -> str:
        return digests.of_text(f"{self._seed}\0{shard}")
