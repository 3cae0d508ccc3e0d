"""Pairs of image and class with their labelled points, as columns that all workers read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from pipeline.evaluation.columns import sorted_codes
from pipeline.storage import digests, parquet


class Label(NamedTuple):
    """A class that points are about.

    Attributes:
        id: the label of the point file, such as /m/01yrx: what counts are kept by.
        name: its display name.
        alias: another name that the point file gives it; empty for none.
    """

    id: str
    name: str
    alias: str

    @property
    def prompt(self) -> str:
        """The name as prompts and predictions spell it."""
        return self.name.lower()


class PairPoints(NamedTuple):
    """The points of one pair.

    Attributes:
        number: position among all pairs.
        label: the class.
        x: 0 (left) to 1 (right).
        y: 0 (top) to 1 (bottom).
        yes: whether the class is there.
    """

    number: int
    label: Label
    x: Float64[np.ndarray, " point"]
    y: Float64[np.ndarray, " point"]
    yes: Bool[np.ndarray, " point"]


@dataclass(frozen=True)
class LabelledPairs:
    """All pairs that can be scored, sorted by image, then label.

    Attributes:
        images: ids of the images, sorted.
        labels: the classes, sorted by id.
        image: position in `images`, for every pair.
        label: position in `labels`, for every pair.
        ends: one past the last point of every pair.
        x, y, yes: the points, pair after pair; see `PairPoints`.
    """

    images: list[str]
    labels: list[Label]
    image: Int64[np.ndarray, " pair"]
    label: Int64[np.ndarray, " pair"]
    ends: Int64[np.ndarray, " pair"]
    x: Float64[np.ndarray, " point"]
    y: Float64[np.ndarray, " point"]
    yes: Bool[np.ndarray, " point"]

    def __len__(self) -> int:
        return len(self.ends)

    def yes_counts(self) -> Int64[np.ndarray, " pair"]:
        """Yes points of every pair."""
        total = np.concatenate([[0], np.cumsum(self.yes, dtype=np.int64)])
        counts: np.ndarray = total[self.ends] - total[self._starts()]
        return counts

    def sizes(self) -> Int64[np.ndarray, " pair"]:
        """Points of every pair."""
        sizes: np.ndarray = self.ends - self._starts()
        return sizes

    def of_images(self, ids: Iterable[str]) -> dict[str, list[PairPoints]]:
        """The pairs of each of some images; images without any are not in it."""
        wanted = pa.array(list(dict.fromkeys(ids)), pa.string())
        known = pa.array(self.images, pa.string())
        found = pa.compute.index_in(wanted, value_set=known)
        return {
            image: list(self._of_image(code))
            for image, code in zip(wanted.to_pylist(), found.to_pylist(), strict=True)
            if code is not None
        }

    def _of_image(self, code: int) -> Iterator[PairPoints]:
        first, end = np.searchsorted(self.image, [code, code + 1])
        for index in range(int(first), int(end)):
            part = slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))
            label = self.labels[self.label[index]]
            yield PairPoints(index, label, self.x[part], self.y[part], self.yes[part])

    def _starts(self) -> Int64[np.ndarray, " pair"]:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def digest(self) -> str:
        """16 hex digits over the contents; a file of them need not be the same bit for bit."""
        names = [self.images, [[label.id, label.name, label.alias] for label in self.labels]]
        columns = (self.image, self.label, self.ends, self.x, self.y, self.yes)
        arrays = (np.ascontiguousarray(values).tobytes() for values in columns)
        return digests.of_parts(chain([json.dumps(names).encode()], arrays))

    def to_parquet(self) -> bytes:
        """A file with one row per pair."""
        offsets = pa.array(np.concatenate([[0], self.ends]).astype(np.int32))
        columns = {
            "image": _codes(self.image, self.images),
            "label": _codes(self.label, [label.id for label in self.labels]),
            "name": _codes(self.label, [label.name for label in self.labels]),
            "alias": _codes(self.label, [label.alias for label in self.labels]),
        }
        columns |= {
            name: pa.ListArray.from_arrays(offsets, pa.array(values))
            for name, values in (("x", self.x), ("y", self.y), ("yes", self.yes))
        }
        return parquet.to_bytes(pa.table(columns))

    @classmethod
    def from_parquet(cls, data: bytes) -> LabelledPairs:
        """Read what `to_parquet` made."""
        table = parquet.from_bytes(data).combine_chunks()
        images, image = sorted_codes(table["image"])
        _, label = sorted_codes(table["label"])
        first = np.unique(label, return_index=True)[1]
        details = table.select(["label", "name", "alias"]).take(pa.array(first)).to_pylist()
        x, y, yes = (table[name].combine_chunks().flatten() for name in ("x", "y", "yes"))
        sizes = pa.compute.list_value_length(table["x"]).to_numpy()
        return cls(
            images=images,
            labels=[Label(row["label"], row["name"], row["alias"]) for row in details],
            image=image,
            label=label,
            ends=np.cumsum(sizes, dtype=np.int64),
            x=x.to_numpy(),
            y=y.to_numpy(),
            yes=yes.to_numpy(zero_copy_only=False),
        )


def _codes(codes: Int64[np.ndarray, " pair"], names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array(names, pa.string())
    )
