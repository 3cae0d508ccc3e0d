"""Where things are, as text: paths and URIs, taken apart and put together. Nothing is looked up.

A location is a path or a URI (`file://`, `s3://`, `gs://`; for reading also `http(s)://`). Names
are taken as they are: disks and object stores have no fragments, so that a `#` is a letter of a
name. What follows a `?` in a URI are options of the store, or the query of a web server. A
`file://` URI alone is percent-encoded; and `~` at the start of a path is the home directory.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import quote, unquote


class Parts(NamedTuple):
    """A URI, taken apart: `scheme://host/path?query`; the path without the slash before it."""

    scheme: str
    host: str
    path: str
    query: str

    def joined(self) -> str:
        """The URI again."""
        query = f"?{self.query}" if self.query else ""
        path = f"/{self.path}" if self.path else ""
        return f"{self.scheme}://{self.host}{path}{query}"


def parts(uri: str) -> Parts:
    """Take a URI apart; nothing of it is decoded."""
    scheme, _, rest = uri.partition("://")
    rest, _, query = rest.partition("?")
    host, _, path = rest.partition("/")
    return Parts(scheme, host, path, query)


def is_uri(location: str) -> bool:
    """Whether `location` names a scheme; a plain path (or a Windows drive) does not."""
    return "://" in location


def is_http(location: str) -> bool:
    """Whether `location` is on a web server."""
    return location.startswith(("http://", "https://"))


def is_file(location: str) -> bool:
    """Whether `location` is on a disk of this machine."""
    return not is_uri(location) or location.startswith("file://")


def local_path(location: str) -> str:
    """The absolute path that a path or a `file://` URI stands for."""
    if is_uri(location):
        return os.path.abspath("/" + unquote(parts(location).path))
    return os.path.abspath(os.path.expanduser(location))


def file_uri(path: str) -> str:
    """The `file://` URI of an absolute path."""
    return f"file://{quote(path)}"


def normalise(location: str) -> str:
    """The location as data, free of how it is reached.

    Absolute, without credentials and query (where pyarrow takes endpoints); local paths lose
    `file://` and symbolic names such as `..`.
    """
    if is_file(location):
        return local_path(location)
    taken = parts(location)
    return taken._replace(host=taken.host.rpartition("@")[2], query="").joined()


def absolute(location: str) -> str:
    """A path made absolute; a URI as it is."""
    return location if is_uri(location) else local_path(location)


def public(location: str) -> str:
    """A URI without credentials and query; anything else as it is."""
    return normalise(location) if is_uri(location) else location


def is_inside(location: str, folder: str) -> bool:
    """Whether a location is a folder, or below it."""
    inner, outer = normalise(location).rstrip("/"), normalise(folder).rstrip("/")
    return inner == outer or inner.startswith(f"{outer}/")


def shown(location: str) -> str:
    """A location for people: public, and relative where that is shorter to read."""
    if is_uri(location) or not is_inside(location, os.getcwd()):
        return public(location)
    return os.path.relpath(local_path(location))


def join(location: str, *names: str) -> str:
    """`location` with path components appended, before any query."""
    if not is_uri(location):
        return os.path.join(location, *names)
    taken = parts(location)
    added = map(quote, names) if is_file(location) else names
    path = "/".join((taken.path.rstrip("/"), *added)).lstrip("/")
    return taken._replace(path=path).joined()


def split(location: str) -> tuple[str, str]:
    """The directory that `location` is in, query and all, and its name there: `join` undone."""
    if not is_uri(location):
        return os.path.split(location)
    taken = parts(location)
    folder, _, name = taken.path.rpartition("/")
    name = unquote(name) if is_file(location) else name
    return taken._replace(path=folder).joined(), name
