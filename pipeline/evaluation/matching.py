"""Which entry of a file of truths a sample is: by its whole path, or by its base name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from pipeline.errors import Reject

AMBIGUOUS = "several_truths"


def as_key(file_name: str) -> str:
    r"""A file name as a WebDataset key has it: `\` taken for `/`, without `./` and extension."""
    path = posixpath.normpath(file_name.replace("\\", "/")).lstrip("/")
    return posixpath.splitext(path)[0]


class Matcher:
    """Finds the entry that a key means; folders are never dropped where they tell entries apart."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Take the entries: paths without extension, as `as_key` makes them, or bare names.

        Of two million bare names it keeps no more than a dictionary.
        """
        self._first: dict[str, str] = {}
        self._others: dict[str, list[str]] = {}
        for entry in entries:
            base = posixpath.basename(entry)
            if self._first.setdefault(base, entry) != entry:
                self._others.setdefault(base, []).append(entry)

    def __call__(self, key: str) -> str | None:
        """The entry of a sample; None where there is none.

        That is the one with its path, else the longest that its path ends with, else the only one
        that ends with its path, else the only one with its base name.

        Raises:
            Reject: `several_truths`: several have its base name, and none its path.
        """
        key = posixpath.normpath(key).lstrip("/")
        base = posixpath.basename(key)
        if base not in self._first:
            return None
        named: list[str] = [self._first[base], *self._others.get(base, ())]
        if key in named:
            return key
        if within := [entry for entry in named if key.endswith(f"/{entry}")]:
            return max(within, key=len)
        around = [entry for entry in named if entry.endswith(f"/{key}")]
        for found in (around, named):
            if len(found) == 1:
                return found[0]
        both = f"{named[0]} and {named[1]}"
        raise Reject(AMBIGUOUS, f"{key}: could be {both}: give keys or file names with folders")
