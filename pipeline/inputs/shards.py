"""Which shards there are, and what they are called."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.inputs.patterns import Place, spell_out
from pipeline.storage import digests
from pipeline.storage.patience import START_SECONDS, patiently

LISTED_FROM = 1000
"""With so many names in it a directory is listed. That is a request for every thousand files that
are there, one after the other, instead of one or two for every name, `LOOKUPS` at once: a few names
are found sooner without it, however many files lie beside them."""

LOOKUPS = 16

LONGEST_STEM = 220
"""Bytes of a shard's base name that the names of its tables begin with."""

ENOUGH_MISSING = 100
"""With so many missing names the search ends: of a wrong pattern, all would be."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file of samples.

    Attributes:
        location: where to read it.
        uri: the normalised location, without the input root: the shard's identity.
        size: bytes; 0 where that is not known.
        modified: when it was written, see `storage.Found`; empty where that is not known.
    """

    location: str
    uri: str
    size: int
    modified: str = ""

    @property
    def name(self) -> str:
        """Base name without `.tar`, and 8 hex digits of the sha256 of the URI.

        Of a base name beyond `LONGEST_STEM` bytes the rest is left out: what is written for the
        shard has a longer name than it, and disks take no more than 255 bytes.
        """
        stem = posixpath.basename(self.uri).removesuffix(".tar")
        stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
        return f"{stem}-{digests.of_text(self.uri, digits=8)}"


def shards_of(config: RunConfig) -> list[Shard]:
    """The shards of a run: those that --input names, or the first of them.

    Raises:
        ConfigError: see `find_shards`.
    """
    found = patiently(
        lambda: find_shards(config.patterns, config.input_root), "--input", START_SECONDS
    )
    return found[: config.limit_shards]


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
        ConfigError: a pattern matches nothing, a list cannot be read, a server does not answer, two
            shards would have the same name, or the patterns stand for more than
            `patterns.MOST_NAMES`.
    """
    root = storage.normalise(input_root).rstrip("/") + "/" if input_root else ""
    shards: dict[str, Shard] = {}
    for location, found in _look_up(spell_out(patterns, flag)):
        uri = storage.normalise(location)
        if root and uri.startswith(root):
            uri = uri[len(root) :]
        uri = location if uri == location else uri  # one text for both
        shard = shards.setdefault(uri, Shard(location, uri, *found))
        if _address(shard.location) != _address(location):
            both = f"{storage.public(shard.location)} and {storage.public(location)}"
            raise ConfigError(f"{flag}: {both} would both be called {uri}")
    return list(shards.values())


def _address(location: str) -> str:
    """What tells two shards apart: on a web server, the query too."""
    query = location.partition("?")[2] if storage.is_http(location) else ""
    return storage.normalise(location) + query


def _look_up(places: Sequence[Place]) -> list[tuple[str, storage.Found]]:
    """Location of every shard at the places, in order, and what is said of it there."""
    listed = _list_directories(place.location for place in places)
    # What no listing has may be missing, but also a directory, a glob or on a web server.
    rest = [place for place in places if place.location not in listed]
    found: dict[Place, dict[str, storage.Found]] = {}
    missing: list[Place] = []
    with ThreadPoolExecutor(LOOKUPS) as pool:
        for place, files in zip(rest, pool.map(_find, rest), strict=True):
            found[place] = files
            if not files:
                missing.append(place)
            if len(missing) == ENOUGH_MISSING:
                pool.shutdown(cancel_futures=True)
                break
    if missing:
        raise ConfigError(_not_found(missing, len(places)))
    shards: list[tuple[str, storage.Found]] = []
    for place in places:
        at = place.location
        shards += found[place].items() if place in found else [(at, listed[at])]
    return shards


def _find(place: Place) -> dict[str, storage.Found]:
    try:
        return storage.find(place.location, suffix=".tar")
    except OSError as error:
        named = f"{place.flag} {storage.public(place.pattern)}: {storage.public(place.location)}"
        raise ConfigError(f"{named}: {error}") from error


def _not_found(missing: Sequence[Place], names: int) -> str:
    """What to say of names, out of so many, with no shard."""
    first = missing[0]
    message = f"{first.flag} {storage.public(first.pattern)}: "
    if len(missing) == 1:
        message += f"no shard at {storage.public(first.location)}"
    else:
        number = f"{'at least ' * (len(missing) == ENOUGH_MISSING)}{len(missing)} of {names:,}"
        message += f"{number} names have no shard, the first {storage.public(first.location)}"
    if set("[]*?") & set(first.location) and not first.pattern.startswith("["):
        message += " (*, ? and [] stand for other letters: where a name has a [, write [[])"
    if first.pattern.startswith("["):
        message += (
            " (as a list, this is not valid YAML: put quotes around what begins with @, or give "
            "every pattern with --input+)"
        )
    return message


def _list_directories(locations: Iterable[str]) -> dict[str, storage.Found]:
    """What is said of those locations that are in directories of which many files are named."""
    named: dict[str, dict[str, str]] = defaultdict(dict)
    for location in locations:
        if not storage.is_http(location):  # a web server has no listings
            directory, name = storage.split(location)
            named[directory][name] = location
    found: dict[str, storage.Found] = {}
    for directory, members in named.items():
        if len(members) >= LISTED_FROM:
            files = _files(directory)
            found |= {at: files[name] for name, at in members.items() if name in files}
    return found


def _files(directory: str) -> dict[str, storage.Found]:
    try:
        return storage.list_files(directory)
    except OSError:  # who may read files need not be allowed to list them
        return {}
