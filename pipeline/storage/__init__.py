"""Bytes and the places that hold them: `from pipeline import storage`."""

from pipeline.storage.faults import Unreachable, is_transient
from pipeline.storage.files import (
    Stream,
    create,
    exists,
    open_read,
    read_bytes,
    remove,
    resolve,
    write_bytes,
)
from pipeline.storage.listings import Found, find, list_files, list_names, listing, version
from pipeline.storage.locations import (
    absolute,
    is_http,
    is_inside,
    is_uri,
    join,
    normalise,
    public,
    shown,
    split,
)

__all__ = [
    "Found",
    "Stream",
    "Unreachable",
    "absolute",
    "create",
    "exists",
    "find",
    "is_http",
    "is_inside",
    "is_transient",
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
    "shown",
    "split",
    "version",
    "write_bytes",
]
