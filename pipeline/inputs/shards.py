"""Which shards there are, and what they are called."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from braceexpand import braceexpand

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, naming
from pipeline.storage import digests

LISTED_FROM = 1000
"""With so many names in it a directory is listed. That is a request for every thousand files that
are there, one after the other, instead of one or two for every name, `LOOKUPS` at once: a few names
are found sooner without it, however many files lie beside them."""

LOOKUPS = 16

MOST_NAMES = 10_000_000
"""More than this are a slip of the keyboard, and would fill the memory."""

ENOUGH_MISSING = 100
"""With so many missing names the search ends: of a wrong pattern, all would be."""

BRACES = re.compile(
    r"\\.|{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?}|{[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?}|[{},]",
    re.DOTALL,
)
"""What braceexpand sees in a pattern: what is escaped, ranges, and the marks of alternatives."""


@dataclass(frozen=True)
class Shard:
    """One tar file of samples.

    Attributes:
        location: where to read it.
        uri: the normalised location, without the input root: the shard's identity.
        size: bytes.
    """

    location: str
    uri: str
    size: int

    @property
    def name(self) -> str:
        """Base name without `.tar`, and 8 hex digits of the sha256 of the URI."""
        stem = posixpath.basename(self.uri).removesuffix(".tar")
        return f"{stem}-{digests.of_text(self.uri, digits=8)}"


def shards_of(config: RunConfig) -> list[Shard]:
    """The shards of a run: those that --input names, or the first of them.

    Raises:
        ConfigError: see `find_shards`.
        FileNotFoundError: likewise.
    """
    return find_shards(config.patterns, config.input_root)[: config.limit_shards]


def find_shards(
    patterns: Iterable[str], input_root: str = "", flag: str = "--input"
) -> list[Shard]:
    """Every shard that the patterns name, without repetition, in order.

    Args:
        patterns: paths or URIs; braces (`{000..127}`) and globs are expanded, a directory stands
            for the `.tar` files in it, and `@file` for the patterns in its lines.
        input_root: a prefix taken off the URI before the shard is named, so that data can move.
        flag: the setting that the patterns are of, for messages.

    Raises:
        ConfigError: a list cannot be read, or the patterns stand for more than `MOST_NAMES`.
        FileNotFoundError: a pattern matches nothing, a server does not answer, or two shards would
            have the same name.
    """
    root = storage.normalise(input_root).rstrip("/") + "/" if input_root else ""
    shards: dict[str, Shard] = {}
    for location, size in _look_up(_expand_all(patterns, flag)):
        uri = storage.normalise(location)
        if root and uri.startswith(root):
            uri = uri[len(root) :]
        shard = shards.setdefault(uri, Shard(location, uri, size))
        if _address(shard.location) != _address(location):
            raise FileNotFoundError(
                f"{flag}: {shard.location} and {location} would both be called {uri}"
            )
    return list(shards.values())


def _address(location: str) -> str:
    """What tells two shards apart: on a web server, the query too."""
    query = location.partition("?")[2] if storage.is_http(location) else ""
    return storage.normalise(location) + query


@dataclass(frozen=True)
class _Place:
    """A location to look at, and the pattern that named it."""

    location: str
    pattern: str
    flag: str


def _expand_all(patterns: Iterable[str], flag: str) -> list[_Place]:
    # `--input+ a` puts a behind the empty default.
    expanded = (place for pattern in patterns if pattern for place in _expand(pattern, flag))
    places = list(islice(expanded, MOST_NAMES + 1))
    if len(places) > MOST_NAMES:
        raise ConfigError(f"{flag}: stands for more than {MOST_NAMES:,} names")
    if not places:
        raise FileNotFoundError(f"{flag}: no shard is named; give paths, patterns or @list.txt")
    return places


def _expand(pattern: str, flag: str, lists: tuple[str, ...] = ()) -> Iterator[_Place]:
    """Lists and braces spelled out; globs and directories are left to the storage.

    Args:
        pattern: one of them.
        flag: the setting that it is of.
        lists: those that it is in, outermost first.
    """
    if pattern.startswith("@"):
        if pattern in lists:
            raise ConfigError(f"{flag} {lists[0]}: the list {pattern} names itself")
        lines = _read_list(pattern, flag)
        if not lines:
            raise FileNotFoundError(f"{flag} {pattern}: no shard is named: the list is empty")
        for line in lines:
            yield from _expand(line, flag, (*lists, pattern))
        return
    try:
        too_many = _count(pattern) > MOST_NAMES
        locations: Iterable[str] = () if too_many else braceexpand(pattern)
    except (ValueError, RecursionError):  # one is never closed: it is part of a name
        too_many, locations = False, [pattern]
    if too_many:
        raise ConfigError(f"{flag} {pattern}: stands for more than {MOST_NAMES:,} names")
    yield from (_Place(location, pattern, flag) for location in locations)


def _read_list(pattern: str, flag: str) -> list[str]:
    """The patterns in the file that `pattern` names behind its @."""
    with naming(f"{flag} {pattern}"):
        data = storage.read_bytes(pattern[1:])
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flag} {pattern}: the list is not UTF-8 text: {error}") from error
    return [line for line in lines if line and not line.startswith("#")]


def _count(pattern: str) -> int:
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


def _look_up(places: Sequence[_Place]) -> list[tuple[str, int]]:
    """Location and bytes of every shard at the places, in order."""
    listed = _list_directories(place.location for place in places)
    # What no listing has may be missing, but also a directory, a glob or on a web server.
    rest = [place for place in places if place.location not in listed]
    found: dict[_Place, dict[str, int]] = {}
    missing: list[_Place] = []
    with ThreadPoolExecutor(LOOKUPS) as pool:
        for place, files in zip(rest, pool.map(_find, rest), strict=True):
            found[place] = files
            if not files:
                missing.append(place)
            if len(missing) == ENOUGH_MISSING:
                pool.shutdown(cancel_futures=True)
                break
    if missing:
        raise FileNotFoundError(_not_found(missing, len(places)))
    shards: list[tuple[str, int]] = []
    for place in places:
        at = place.location
        shards += found[place].items() if place in found else [(at, listed[at])]
    return shards


def _find(place: _Place) -> dict[str, int]:
    try:
        return storage.find(place.location, suffix=".tar")
    except OSError as error:
        raise FileNotFoundError(
            f"{place.flag} {place.pattern}: {place.location}: {error}"
        ) from error


def _not_found(missing: Sequence[_Place], names: int) -> str:
    """What to say of names, out of so many, with no shard."""
    first = missing[0]
    message = f"{first.flag} {first.pattern}: "
    if len(missing) == 1:
        message += f"no shard at {first.location}"
    else:
        number = f"{'at least ' * (len(missing) == ENOUGH_MISSING)}{len(missing)} of {names:,}"
        message += f"{number} names have no shard, the first {first.location}"
    if first.pattern.startswith("["):
        message += (
            " (as a list, this is not valid YAML: put quotes around what begins with @, or give "
            "every pattern with --input+)"
        )
    return message


def _list_directories(locations: Iterable[str]) -> dict[str, int]:
    """Location → bytes of those that are in directories of which many files are named."""
    named: dict[str, dict[str, str]] = defaultdict(dict)
    for location in locations:
        if not storage.is_http(location):  # a web server has no listings
            directory, name = storage.split(location)
            named[directory][name] = location
    found: dict[str, int] = {}
    for directory, members in named.items():
        if len(members) >= LISTED_FROM:
            sizes = _sizes(directory)
            found |= {at: sizes[name] for name, at in members.items() if name in sizes}
    return found


def _sizes(directory: str) -> dict[str, int]:
    try:
        return storage.list_files(directory)
    except OSError:  # who may read files need not be allowed to list them
        return {}
