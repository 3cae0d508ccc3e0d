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
        ConfigError: such a file is damaged.
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
    """What a file says; nothing where there is none."""
    try:
        text = storage.read_bytes(location)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        return {str(name): int(size) for name, size in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        why = f"damaged ({one_line(error)}); it has the number of samples of each shard by name"
        raise ConfigError(f"{storage.public(location)}: {why}") from error
