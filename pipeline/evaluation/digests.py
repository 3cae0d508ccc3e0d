"""What the files of a truth hold, for fingerprints: where they lie decides no count."""

from __future__ import annotations

from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, naming
from pipeline.storage import digests

FOLDERS = ("masks",)
"""Settings that name a folder: thousands of files, which nobody wants to read for this alone."""


def digests_of(config: Any, *names: str) -> dict[str, str]:
    """Setting → digest, for those of the named settings of a configuration that are given.

    Raises:
        ConfigError: a file or folder is not there, or cannot be read, or one is the other.
    """
    given = {name: getattr(config, name) for name in names if getattr(config, name)}
    found = {}
    for name, location in given.items():
        digest = digests.of_folder if name in FOLDERS else digests.of_file
        setting = f"--{name} {storage.public(location)}"
        with naming(setting):
            try:
                found[name] = digest(location)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                kind = "folder" if name in FOLDERS else "file"
                raise ConfigError(f"{setting}: there is no such {kind}") from error
    return found
