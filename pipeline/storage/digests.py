"""Digests of contents: sha256 in hexadecimal, shortened to what tells the things of a run apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pipeline.storage.files import open_read
from pipeline.storage.listings import listing

SHORT = 16
"""Digits (64 bits): settings, files and names of one run are few."""
FULL = 64
BLOCK = 1 << 20


def of_parts(parts: Iterable[bytes], digits: int = SHORT) -> str:
    """The digest of some bytes that come in parts: where one ends, makes no difference."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:digits]


def of_bytes(data: bytes, digits: int = SHORT) -> str:
    """The digest of some bytes."""
    return of_parts([data], digits)


def of_text(text: str, digits: int = SHORT) -> str:
    """The digest of a text in UTF-8."""
    return of_bytes(text.encode(), digits)


def of_file(location: str, digits: int = SHORT) -> str:
    """The digest of what a file of any size holds.

    Raises:
        OSError: the file cannot be read.
    """
    with open_read(location) as stream:
        return of_parts(iter(lambda: stream.read(BLOCK), b""), digits)


def of_folder(location: str, digits: int = SHORT) -> str:
    """The digest of paths, sizes and times of the files in a folder.

    Raises:
        OSError: there is no such folder, or it cannot be listed.
    """
    lines = [f"{name} {size} {written}" for name, size, written in listing(location)]
    return of_text("\n".join(lines), digits)
