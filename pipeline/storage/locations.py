"""Where things are, as text: paths and URIs, taken apart and put together. Nothing is looked up.

A location is a path or a URI (`file://`, `s3://`, `gs://`; for reading also `http(s)://`).
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit


def is_uri(location: str) -> bool:
    """Whether `location` names a scheme; a plain path (or a Windows drive) does not."""
    return "://" in location


def is_http(location: str) -> bool:
    """Whether `location` is on a web server."""
    return location.startswith(("http://", "https://"))


def normalise(location: str) -> str:
    """The location as data, free of how it is reached.

    Absolute, without credentials, query (where pyarrow takes endpoints) and fragment; local paths
    lose `file://` and symbolic names such as `..`.
    """
    if not is_uri(location):
        return os.path.abspath(location)
    parts = urlsplit(location)
    if parts.scheme == "file":
        return os.path.abspath(parts.path)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def absolute(location: str) -> str:
    """A path made absolute; a URI as it is."""
    return location if is_uri(location) else os.path.abspath(location)


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
    return os.path.relpath(location)


def join(location: str, *names: str) -> str:
    """`location` with path components appended, before any query."""
    if not is_uri(location):
        return os.path.join(location, *names)
    parts = urlsplit(location)
    path = "/".join((parts.path.rstrip("/"), *names))
    return urlunsplit(parts._replace(path=path))


def split(location: str) -> tuple[str, str]:
    """The directory that `location` is in, query and all, and its name there: `join` undone."""
    path, mark, query = location.partition("?") if is_uri(location) else (location, "", "")
    directory, name = os.path.split(path)
    return directory + mark + query, name
