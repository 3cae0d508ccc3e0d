"""What the files of a truth hold, for fingerprints: where they lie decides no count."""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline import storage
from pipeline.config import ConfigError

BLOCK = 1 << 20
FOLDERS = ("masks",)
"""Settings that name a folder: thousands of files, which nobody wants to read for this alone."""


def contents(config: Any, *names: str) -> dict[str, str]:
    """Setting → digest, for those of the named settings of a configuration that are given.

    Raises:
        ConfigError: a file or folder is not there, or one is the other.
    """
    given = {name: getattr(config, name) for name in names if getattr(config, name)}
    digests = {}
    for name, location in given.items():
        try:
            digests[name] = (of_folder if name in FOLDERS else of_file)(location)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            kind = "folder" if name in FOLDERS else "file"
            raise ConfigError(f"--{name} {location}: there is no such {kind}") from error
    return digests


def of_file(location: str) -> str:
    """16 hex digits over the bytes of a file of any size."""
    digest = hashlib.sha256()
    with storage.open_read(location) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]


def of_folder(location: str) -> str:
    """16 hex digits over names, sizes and times of the files directly in a folder."""
    lines = [f"{name} {size} {written}" for name, size, written in storage.listing(location)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
