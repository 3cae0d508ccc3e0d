"""Which shards there are, and what they are called."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from braceexpand import braceexpand

from pipeline import storage


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
        return f"{stem}-{hashlib.sha256(self.uri.encode()).hexdigest()[:8]}"


def find_shards(patterns: Iterable[str], input_root: str = "") -> list[Shard]:
    """Every shard that the patterns name, without repetition, in order.

    Args:
        patterns: paths or URIs; braces (`{000..127}`) and globs are expanded, a directory stands
            for the `.tar` files in it, and `@file` for the patterns in its lines.
        input_root: a prefix taken off the URI before the shard is named, so that data can move.

    Raises:
        FileNotFoundError: a pattern matches nothing, a server does not answer, or two shards would
            have the same name.
    """
    root = storage.normalise(input_root).rstrip("/") + "/" if input_root else ""
    shards: dict[str, Shard] = {}
    for pattern in patterns:
        for location, size in _expand(pattern):
            uri = storage.normalise(location)
            if root and uri.startswith(root):
                uri = uri[len(root) :]
            shard = shards.setdefault(uri, Shard(location, uri, size))
            if _address(shard.location) != _address(location):
                raise FileNotFoundError(
                    f"--input: {shard.location} and {location} would both be called {uri}"
                )
    return list(shards.values())


def _address(location: str) -> str:
    """What tells two shards apart: on a web server, the query too."""
    query = location.partition("?")[2] if storage.is_http(location) else ""
    return storage.normalise(location) + query


def _expand(pattern: str) -> Iterator[tuple[str, int]]:
    if pattern.startswith("@"):
        for line in storage.read_bytes(pattern[1:]).decode().splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield from _expand(line.strip())
        return
    for location in _braces(pattern):
        try:
            found = storage.find(location, suffix=".tar")
        except OSError as error:
            raise FileNotFoundError(f"--input {pattern}: {location}: {error}") from error
        if not found:
            raise FileNotFoundError(f"--input {pattern}: no shard at {location}")
        yield from found.items()


def _braces(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError:  # one is never closed: it is part of a name
        return [pattern]
