"""Patterns spelled out: lists of names in files, and braces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from braceexpand import braceexpand

from pipeline import storage
from pipeline.errors import ConfigError, naming

MOST_NAMES = 10_000_000
"""More than this are a slip of the keyboard, and would fill the memory."""

BRACES = re.compile(
    r"\\.|{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?}|{[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?}|[{},]",
    re.DOTALL,
)
"""What braceexpand sees in a pattern: what is escaped, ranges, and the marks of alternatives."""


@dataclass(frozen=True, slots=True)
class Place:
    """A location to look at, the pattern that named it, and the setting that this is of."""

    location: str
    pattern: str
    flag: str


def spell_out(patterns: Iterable[str], flag: str) -> list[Place]:
    """Every location that the patterns name, in order; globs and directories stay as they are.

    Args:
        patterns: paths or URIs with braces (`{000..127}`), or `@file` for those in its lines.
        flag: the setting that they are of, for messages.

    Raises:
        ConfigError: nothing is named, a list cannot be read, or the patterns stand for more than
            `MOST_NAMES`.
    """
    # `--input+ a` puts a behind the empty default.
    expanded = (place for pattern in patterns if pattern for place in _expand(pattern, flag))
    places = list(islice(expanded, MOST_NAMES + 1))
    if len(places) > MOST_NAMES:
        raise ConfigError(f"{flag}: stands for more than {MOST_NAMES:,} names")
    if not places:
        raise ConfigError(f"{flag}: no shard is named; give paths, patterns or @list.txt")
    return places


def _expand(pattern: str, flag: str, lists: tuple[str, ...] = ()) -> Iterator[Place]:
    """Lists and braces spelled out; globs and directories are left to the storage.

    Args:
        pattern: one of them.
        flag: the setting that it is of.
        lists: those that it is in, outermost first.
    """
    if pattern.startswith("@"):
        if pattern in lists:
            raise ConfigError(
                f"{flag} {storage.public(lists[0])}: the list {storage.public(pattern)} names "
                "itself"
            )
        lines = _read_list(pattern, flag)
        if not lines:
            raise ConfigError(
                f"{flag} {storage.public(pattern)}: no shard is named: the list is empty"
            )
        for line in lines:
            yield from _expand(line, flag, (*lists, pattern))
        return
    try:
        too_many = count_names(pattern) > MOST_NAMES
        locations: Iterable[str] = () if too_many else braceexpand(pattern)
    except (ValueError, RecursionError):  # one is never closed: it is part of a name
        too_many, locations = False, [pattern]
    if too_many:
        raise ConfigError(
            f"{flag} {storage.public(pattern)}: stands for more than {MOST_NAMES:,} names"
        )
    yield from (Place(location, pattern, flag) for location in locations)


def _read_list(pattern: str, flag: str) -> list[str]:
    """The patterns in the file that `pattern` names behind its @."""
    with naming(f"{flag} {storage.public(pattern)}"):
        data = storage.read_bytes(pattern[1:])
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{flag} {storage.public(pattern)}: the list is not UTF-8 text: {error}"
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def count_names(pattern: str) -> int:
    """How many names the braces of a pattern stand for, without spelling them out."""
    before, now = [0], [1]  # per open brace: in the alternatives before this one, and in this one
    for token in BRACES.finditer(pattern):
        if token[1]:
            first, last, step = int(token[1]), int(token[2]), int(token[3] or 1)
            now[-1] *= abs(last - first) // (step or 1) + 1
        elif token[0] == "{":
            before.append(0)
            now.append(1)
        elif token[0] == "," and len(now) > 1:
            before[-1] += now[-1]
            now[-1] = 1
        elif token[0] == "}" and len(now) > 1:
            alternatives = before.pop() + now.pop()
            now[-1] *= alternatives
        elif token[0].startswith("{"):
            now[-1] *= len(list(braceexpand(token[0])))
    return max(now)
