"""Names of labels, in the CSV layout of OpenImages' class descriptions."""

from __future__ import annotations

import csv
import io
import itertools

from pipeline import storage
from pipeline.errors import ConfigError, naming

LABEL, NAME = "LabelName", "DisplayName"
HEADERS = frozenset(
    ("labelname", "displayname", "label", "name", "id", "mid", "class", "classname", "description")
)
"""What columns are called, without case, blanks and underscores, by those who give a header."""


def read_descriptions(location: str) -> dict[str, str]:
    """Label → display name; both are texts, whatever they look like.

    The columns are found by name, else they are the first two. A first row in which neither of
    these is a word that columns are called is data: not all such files have a header.

    Raises:
        ConfigError: the file cannot be read, is empty, or has fewer than two columns.
    """
    shown = f"--descriptions {storage.public(location)}"
    with naming(shown):
        data = storage.read_bytes(location)
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        filled = [row for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{shown}: is no CSV in UTF-8: {error}") from error
    if not filled:
        raise ConfigError(f"{shown}: is empty")
    header = filled[0]
    if (LABEL in header) != (NAME in header):
        there = ", ".join(header)
        raise ConfigError(f"{shown}: needs the columns {LABEL}, {NAME} (it has {there})")
    columns = (header.index(LABEL), header.index(NAME)) if LABEL in header else (0, 1)
    names: dict[str, str] = {}
    for number, row in enumerate(itertools.islice(filled, int(_is_header(header)), None), 1):
        if len(row) <= max(columns):
            raise ConfigError(f"{shown}: needs a label and a name in each row; row {number}: {row}")
        label, name = (row[column].strip() for column in columns)
        if name:
            names[label] = name
    return names


def _is_header(row: list[str]) -> bool:
    return any(cell.lower().translate({32: None, 95: None}) in HEADERS for cell in row[:2])
