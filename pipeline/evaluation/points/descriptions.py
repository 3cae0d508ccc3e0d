"""Names of labels, in the CSV layout of OpenImages' class descriptions."""

from __future__ import annotations

import csv
import io

from pipeline import storage
from pipeline.errors import ConfigError, naming
from pipeline.inputs.classes import is_blank

LABEL, NAME = "labelname", "displayname"
OPEN_IMAGES = frozenset(("LabelName", "DisplayName"))
HEADERS = frozenset(
    ("labelname", "displayname", "label", "name", "id", "mid", "class", "classname", "description")
)
"""What columns are called by those who give a header; see `_plain`."""


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
    header = [_plain(cell) for cell in filled[0]]
    by_name = {LABEL, NAME} <= set(header)
    if not by_name and not OPEN_IMAGES.isdisjoint(cell.strip() for cell in filled[0]):
        there = ", ".join(filled[0])
        raise ConfigError(f"{shown}: needs the columns LabelName, DisplayName (it has {there})")
    columns = (header.index(LABEL), header.index(NAME)) if by_name else (0, 1)
    names: dict[str, str] = {}
    has_header = not HEADERS.isdisjoint(header[:2])
    for number, row in enumerate(filled[has_header:], 1):
        if len(row) <= max(columns):
            raise ConfigError(f"{shown}: needs a label and a name in each row; row {number}: {row}")
        label, name = (row[column].strip() for column in columns)
        if is_blank(name):
            continue
        if names.setdefault(label, name) != name:
            raise ConfigError(f"{shown}: {label} has two names, {names[label]} and {name}")
    return names


def _plain(name: str) -> str:
    """The name of a column without case, blanks and underscores."""
    return name.lower().translate({32: None, 95: None})
