"""Sound files that a class file names: where they are, as far as settings have to know."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

import yaml

from pipeline import storage

FIELD = "sounds"
"""Of an entry of the class file."""


def locate(name: str, classes: str) -> str:
    """Where a sound file is: its own location, or one from the folder of the class file on."""
    if storage.is_uri(name) or posixpath.isabs(name):
        return name
    folder = posixpath.dirname(classes)
    return storage.join(folder, *name.split("/")) if folder else name


def named_in(classes: str, data: bytes) -> list[str]:
    """Locations of all sound files that a class file names, in its order; none if it is wrong.

    Args:
        classes: where the class file is.
        data: what it holds.
    """
    if FIELD.encode() not in data:  # a parse of 20,000 classes takes its time
        return []
    try:
        entries = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError):
        return []  # whoever reads the classes says so
    return [locate(name, classes) for name in _names(entries)]


def _names(entries: Any) -> Iterator[str]:
    for entry in entries if isinstance(entries, list) else ():
        names = entry.get(FIELD) if isinstance(entry, dict) else None
        yield from (n for n in (names if isinstance(names, list) else ()) if isinstance(n, str))
