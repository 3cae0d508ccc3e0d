"""Point labels in the CSV layout of OpenImages V7: read in streaming fashion, cleaned, grouped.

The full training file has 66 million rows, so that rows are numbers in columns here, never Python
objects. Every row that is left out is counted under a reason.
"""

from __future__ import annotations

import csv as python_csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64
from pyarrow import csv

from pipeline import storage
from pipeline.errors import ConfigError, naming, one_line
from pipeline.evaluation.columns import sorted_codes
from pipeline.evaluation.points.descriptions import read_descriptions
from pipeline.evaluation.points.pairs import Label, LabelledPairs

BLOCK = 32 << 20
"""Bytes of CSV that are parsed at once."""
LINE_END = re.compile("\r\n|\r|\n")
CODES = pa.dictionary(pa.int32(), pa.string())
COLUMNS = {
    "ImageId": CODES,
    "X": pa.float64(),
    "Y": pa.float64(),
    "Label": CODES,
    "EstimatedYesNo": pa.string(),
}
NAME_COLUMN = "TextLabel"
"""A free-form name, often empty: it stands in where the descriptions do not know a label."""


@dataclass(frozen=True)
class Cleaning:
    """What became of the rows of a point file.

    Attributes:
        rows: data rows in the file.
        left_out: reason → rows.
        strange_answers: answers other than yes, no and unsure → rows.
        named_by_row: labels that the descriptions do not know, and that TextLabel names.
        unnamed_labels: labels that nothing names → rows.
    """

    rows: int
    left_out: dict[str, int]
    strange_answers: dict[str, int]
    named_by_row: list[str]
    unnamed_labels: dict[str, int]


def read_labels(points: str, descriptions: str) -> tuple[LabelledPairs, Cleaning]:
    """The pairs of image and class that have a yes point, with all their yes and no points.

    Args:
        points: location of a CSV with ImageId, X, Y, Label and EstimatedYesNo, found by name.
        descriptions: location of a CSV with LabelName and DisplayName, or label and name in its
            first two columns.

    Raises:
        ConfigError: a file cannot be read, is empty, has not the columns it needs, or a value that
            is no number.
    """
    display = read_descriptions(descriptions)
    left_out: Counter[str] = Counter()
    strange: Counter[str] = Counter()
    batches: list[pa.Table] = []
    texts: dict[str, str] = {}
    rows = 0
    for batch in _batches(points):
        rows += batch.num_rows
        _note_texts(batch, texts, display)
        batches.append(_answered(batch, left_out, strange))
    if not rows:
        raise ConfigError(f"--points {points}: has a header and no rows")
    names = texts | display
    columns = _Columns.of(pa.concat_tables(batches).unify_dictionaries().combine_chunks())
    unnamed = columns.drop_unnamed(names, left_out)
    columns.drop_repeated(left_out)
    pairs = columns.pairs(names, texts, left_out)
    named_by_row = sorted({label.id for label in pairs.labels} - set(display))
    kept = {reason: n for reason, n in sorted(left_out.items()) if n}
    return pairs, Cleaning(rows, kept, dict(strange), named_by_row, unnamed)


def _batches(location: str) -> Iterator[pa.RecordBatch]:
    """The columns that are needed, block by block; null where the file has nothing."""
    header, skipped = _header(location)
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ConfigError(
            f"--points {location}: no column {', '.join(missing)} (it has {', '.join(header)})"
        )
    twice = [name for name in (*COLUMNS, NAME_COLUMN) if header.count(name) > 1]
    if twice:
        raise ConfigError(
            f"--points {location}: the column {', '.join(twice)} is there twice; leave one of them"
        )
    types = COLUMNS | ({NAME_COLUMN: pa.string()} if NAME_COLUMN in header else {})
    options = csv.ConvertOptions(include_columns=list(types), column_types=types)
    try:
        with naming(f"--points {location}"), storage.open_read(location) as stream:
            for batch in csv.open_csv(
                pa.input_stream(stream),
                # Its own reading of the header takes blanks around a name for a part of it.
                read_options=csv.ReadOptions(
                    block_size=BLOCK, column_names=header, skip_rows=skipped
                ),
                convert_options=options,
            ):
                for name in ("ImageId", "Label"):
                    place = batch.schema.get_field_index(name)
                    batch = batch.set_column(place, name, _trimmed(batch[name]))
                yield batch
    except pa.ArrowException as error:
        raise ConfigError(f"--points {location}: {one_line(error)}") from error


def _header(location: str) -> tuple[list[str], int]:
    """Names of the columns of a CSV file, and the number of lines that end with them."""
    with naming(f"--points {location}"), storage.open_read(location) as stream:
        start = stream.read(1 << 16)
    lines = LINE_END.split(start.decode("utf-8-sig", errors="replace"))
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                names = next(python_csv.reader([line], skipinitialspace=True))
            except python_csv.Error as error:
                raise ConfigError(f"--points {location}: is no CSV: {error}") from error
            return [name.strip() for name in names], number
    raise ConfigError(f"--points {location}: is empty")


def _note_texts(batch: pa.RecordBatch, texts: dict[str, str], known: Mapping[str, str]) -> None:
    """Remember the first TextLabel of every label; other spellings of a known name included."""
    if NAME_COLUMN not in batch.schema.names:
        return
    table = pa.table({"label": batch["Label"].cast(pa.string()), "text": batch[NAME_COLUMN]})
    table = table.filter(pc.greater(pc.utf8_length(table["text"]), 0))
    first = table.group_by("label", use_threads=False).aggregate([("text", "first")])
    for label, text in zip(
        first["label"].to_pylist(), first["text_first"].to_pylist(), strict=True
    ):
        texts.setdefault(label, text)


def _answered(batch: pa.RecordBatch, left_out: Counter[str], strange: Counter[str]) -> pa.Table:
    """The rows whose answer is yes or no, and whose point lies in the image."""
    answer = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(batch["EstimatedYesNo"], "")))
    yes, no, unsure = (pc.equal(answer, word) for word in ("yes", "no", "unsure"))
    decided = pc.or_(yes, no)
    odd = pc.invert(pc.or_(decided, unsure))
    for entry in answer.filter(odd).value_counts().to_pylist():
        strange[entry["values"]] += entry["counts"]
    x, y = batch["X"], batch["Y"]
    inside = pc.and_(_within(x), _within(y))
    identified = pc.and_(_says_something(batch["ImageId"]), _says_something(batch["Label"]))
    left_out["unsure"] += pc.sum(unsure).as_py() or 0
    left_out["unknown answer"] += pc.sum(odd).as_py() or 0
    left_out["outside the image"] += _count(pc.and_not(decided, inside))
    good = pc.and_(decided, inside)
    left_out["no image or label"] += _count(pc.and_not(good, identified))
    columns = {"image": batch["ImageId"], "label": batch["Label"], "x": x, "y": y, "yes": yes}
    return pa.table(columns).filter(pc.and_(good, identified))


def _trimmed(names: pa.DictionaryArray) -> pa.DictionaryArray:
    """Names without the blanks around them."""
    trimmed = pc.utf8_trim_whitespace(names.dictionary)
    if trimmed.equals(names.dictionary):
        return names
    distinct = pc.unique(trimmed)
    indices = pc.index_in(trimmed, value_set=distinct).take(names.indices)
    return pa.DictionaryArray.from_arrays(indices, distinct)


def _says_something(names: pa.DictionaryArray) -> pa.Array:
    """Whether each of some names is there, and not empty."""
    is_name = pc.greater(pc.utf8_length(names.dictionary), 0)
    return pc.fill_null(is_name.take(names.indices), False)


def _within(values: pa.Array) -> pa.Array:
    """Whether a coordinate is a number in [0, 1]."""
    inside = pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, 1.0))
    return pc.fill_null(inside, False)


def _count(flags: pa.Array) -> int:
    return int(pc.sum(flags).as_py() or 0)


@dataclass
class _Columns:
    """Rows as numbers, in any order; images and labels are codes of sorted names."""

    images: list[str]
    labels: list[str]
    image: Int64[np.ndarray, " row"]
    label: Int64[np.ndarray, " row"]
    x: Float64[np.ndarray, " row"]
    y: Float64[np.ndarray, " row"]
    yes: Bool[np.ndarray, " row"]

    @classmethod
    def of(cls, table: pa.Table) -> _Columns:
        """Take the rows of `_answered`, with one dictionary each."""
        images, image = sorted_codes(table["image"])
        labels, label = sorted_codes(table["label"])
        x, y, yes = (table[name].to_numpy() for name in ("x", "y", "yes"))
        return cls(images, labels, image, label, x, y, yes)

    def drop_unnamed(self, names: Mapping[str, str], left_out: Counter[str]) -> dict[str, int]:
        """Leave out the rows of labels without a name; returns their number per label."""
        has_name = np.array([bool(names.get(label)) for label in self.labels], dtype=bool)
        unnamed = np.bincount(self.label, minlength=len(self.labels))
        left_out["label without a name"] += int(unnamed[~has_name].sum())
        self._keep(has_name[self.label])
        return {self.labels[i]: int(unnamed[i]) for i in np.flatnonzero(~has_name) if unnamed[i]}

    def drop_repeated(self, left_out: Counter[str]) -> None:
        """Sort by image, label and place; leave one of equal rows, none of contradictory ones."""
        self._keep(np.lexsort((self.y, self.x, self._pair())))
        same = self._pair()
        new = np.ones(len(same), dtype=bool)
        for values in (same, self.x, self.y):
            new[1:] &= values[1:] == values[:-1]
        new[1:] = ~new[1:]
        starts = np.flatnonzero(new)
        if not len(starts):
            return
        size = np.diff(starts, append=len(same))
        agreeing = np.add.reduceat(self.yes.astype(np.int64), starts)
        contradictory = (agreeing > 0) & (agreeing < size)
        left_out["contradictory"] += int(size[contradictory].sum())
        left_out["repeated"] += int((size - 1)[~contradictory].sum())
        self._keep(starts[~contradictory])

    def pairs(
        self, names: Mapping[str, str], texts: Mapping[str, str], left_out: Counter[str]
    ) -> LabelledPairs:
        """Group sorted rows by image and label; pairs without a yes point are left out."""
        pair = self._pair()
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        sizes = np.diff(starts, append=len(pair))
        has_yes = np.zeros(0, dtype=bool)
        if len(starts):
            has_yes = np.add.reduceat(self.yes.astype(np.int64), starts) > 0
        left_out["class has no yes point in the image"] += int(sizes[~has_yes].sum())
        self._keep(np.repeat(has_yes, sizes))
        first = starts[has_yes]
        images, image = np.unique(pair[first] // len(self.labels), return_inverse=True)
        labels, label = np.unique(pair[first] % len(self.labels), return_inverse=True)
        used = [self.labels[code] for code in labels]
        return LabelledPairs(
            images=[self.images[code] for code in images],
            labels=[Label(id, names[id], texts.get(id, "")) for id in used],
            image=image,
            label=label,
            ends=np.cumsum(sizes[has_yes]),
            x=self.x,
            y=self.y,
            yes=self.yes,
        )

    def _pair(self) -> Int64[np.ndarray, " row"]:
        """One number for image and label, in the order of both."""
        pair: np.ndarray = self.image * len(self.labels) + self.label
        return pair

    def _keep(self, which: np.ndarray) -> None:
        for name in ("image", "label", "x", "y", "yes"):
            setattr(self, name, getattr(self, name)[which])
