"""Bytes and the places that hold them: `from pipeline import storage`."""

from pipeline.storage.files import (
    Stream,
    create,
    exists,
    find,
    list_files,
    list_names,
    listing,
    open_read,
    read_bytes,
    remove,
    resolve,
    version,
    write_bytes,
)
from pipeline.storage.locations import absolute, is_http, is_uri, join, normalise, public, split

__all__ = [
    "Stream",
    "absolute",
    "create",
    "exists",
    "find",
    "is_http",
    "is_uri",
    "join",
    "list_files",
    "list_names",
    "listing",
    "normalise",
    "open_read",
    "public",
    "read_bytes",
    "remove",
    "resolve",
    "split",
    "version",
    "write_bytes",
]
