"""`run.json`: whose results an output holds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pipeline import storage
from pipeline.config import SCHEMA_VERSION, fingerprint
from pipeline.errors import ConfigError, TakenOver
from pipeline.storage.json_files import JsonFiles, settled

LONGEST_SHOWN = 200
PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "simplejpeg", "pillow", "pyarrow", "pycocotools"),
    "webdataset",
)
FILE = "run.json"


class Ownership:
    """The run that an output belongs to.

    Several threads may ask at once.
    """

    def __init__(self, files: JsonFiles) -> None:
        self._files = files
        self._last: tuple[storage.Found, str] | None = None

    def read(self) -> dict[str, Any]:
        """What the file says: settings, fingerprint, versions; empty where there is no run.

        Raises:
            ConfigError: it is damaged, or of a later release.
        """
        content = self._files.find(FILE)
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise self._files.damaged(FILE, f"a {type(content).__name__}, and not a JSON object")
        if content.get("schema_version", 1) > SCHEMA_VERSION:
            raise ConfigError(
                f"{self._files.path(FILE)}: has schema version {content['schema_version']}, "
                f"and this release knows up to {SCHEMA_VERSION}: use the release that made it"
            )
        return content

    def write(self, identity: dict[str, Any], config: dict[str, Any]) -> None:
        """Take the output over.

        Args:
            identity: the settings that change results.
            config: all settings, for people.
        """
        self._files.write(
            FILE,
            {
                "schema_version": SCHEMA_VERSION,
                "fingerprint": fingerprint(identity),
                "results": identity,
                "config": config,
                "versions": {name: version(name) for name in PACKAGES},
            },
        )

    def identity(self) -> dict[str, Any]:
        """The settings that made what is here; empty where there is no run."""
        identity: dict[str, Any] = self.read().get("results", {})
        return identity

    def fingerprint(self) -> str:
        """Of these settings; empty where there is no run.

        One small request, unless the file is another one than the last time, or still so young
        that its size and time cannot tell.
        """
        seen = time.time_ns()
        location = self._files.path(FILE)
        found = storage.find(location).get(location)
        last = self._last
        if found is not None and last is not None and found == last[0]:
            return last[1]
        identity = self.identity() if found is not None else {}
        here = fingerprint(identity) if identity else ""
        self._last = (found, here) if found is not None and settled(found, seen) else None
        return here

    def check(self, mine: str) -> None:
        """Make sure that the run here is still one's own, or none.

        Args:
            mine: its fingerprint.

        Raises:
            TakenOver: it is another one.
        """
        if self.fingerprint() not in ("", mine):
            raise TakenOver(
                f"--output {storage.public(self._files.output)}: another run, with other settings, "
                "has taken it over; this one stops"
            )


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In which settings two identities differ, a line for each."""
    old, new = flattened(there), flattened(json.loads(json.dumps(now)))
    return [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in groups as one mapping, under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(settings: Mapping[str, Any], key: str) -> str:
    """A value for a message: of a thousand names, the first will do."""
    if key not in settings:
        return "unset"  # or as it was before there was such a setting
    text = repr(settings[key])
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
