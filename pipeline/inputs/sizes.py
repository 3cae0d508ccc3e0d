"""How many samples shards have, where that is known without reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pipeline import storage
from pipeline.errors import ConfigError, one_line
from pipeline.inputs.shards import Shard

FILE = "sizes.json"
"""Base name of every tar of a folder → its samples, as open_clip's training reads it."""
FOLDERS = 16
"""Shards in more folders than this are not asked about, for each is a request."""


def listed_sizes(shards: Sequence[Shard]) -> dict[str, int]:
    """Name of every shard that a `sizes.json` beside it lists → its samples.

    Raises:
        ConfigError: such a file is damaged, or its storage is out of reach.
    """
    places = [storage.split(shard.location) for shard in shards]
    folders = {folder for folder, _ in places}
    if len(folders) > FOLDERS:
        return {}
    found = {folder: _read(storage.join(folder, FILE)) for folder in folders}
    return {
        shard.name: found[folder][base]
        for shard, (folder, base) in zip(shards, places, strict=True)
        if base in found[folder]
    }


def _read(location: str) -> Mapping[str, int]:
    """What a file says; nothing where there is none.

    A server that lets nobody list its files may refuse, with 403, what is not there.
    """
    try:
        text = storage.read_bytes(location)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except OSError as error:
        why = f"not readable ({one_line(error)}), and it says how many images there are; try again"
        raise ConfigError(f"{storage.public(location)}: {why}") from error
    try:
        return {str(name): int(size) for name, size in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        why = f"damaged ({one_line(error)}); it has the number of samples of each shard by name"
        raise ConfigError(f"{storage.public(location)}: {why}") from error
