"""The JSON files below an output, each written whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, one_line

AT_A_TIME = 16
"""Requests."""
AT_ONCE = 1000
"""Records that are read, and in memory, before the first of them is wanted."""


SETTLES = 2 * 10**9
"""Nanoseconds: the coarsest times of files are whole seconds."""


def settled(found: storage.Found, seen: int) -> bool:
    """Whether the file is another one only if size or time are, from when they were `seen` on.

    A file that was replaced right after it was written may have the same time again.

    Args:
        found: what is said of it.
        seen: when that was asked for, ns after 1970.
    """
    return found.modified.isdecimal() and seen - int(found.modified) > SETTLES


class JsonFiles:
    """Reads and writes them, by their paths below the output.

    Attributes:
        output: where they are.
    """

    def __init__(self, output: str) -> None:
        self.output = output

    def path(self, path: str) -> str:
        """The location of a path below the output."""
        return storage.join(self.output, *path.split("/"))

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return storage.exists(self.path(path))

    def read(self, path: str) -> Any:
        """What a file says.

        Raises:
            ConfigError: it is damaged.
            FileNotFoundError: there is none.
        """
        try:
            return json.loads(storage.read_bytes(self.path(path)))
        except ValueError as error:
            raise self.damaged(path, one_line(error)) from error

    def record(self, path: str) -> dict[str, Any]:
        """The same of a file that holds a JSON object."""
        content = self.read(path)
        if not isinstance(content, dict):
            raise self.damaged(path, f"a {type(content).__name__}, and not a JSON object")
        return content

    def find(self, path: str) -> Any:
        """The same as `read`, and None where there is no such file, not even a place for it."""
        try:
            return self.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def records(self, folder: str, names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Some of the records in a folder, by name: two requests for each, many at once.

        Those that a run has taken back since they were listed are left out.
        """

        def read(name: str) -> dict[str, Any] | None:
            try:
                return self.record(f"{folder}/{name}.json")
            except FileNotFoundError:
                return None

        ordered = sorted(names)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for start in range(0, len(ordered), AT_ONCE):
                some = ordered[start : start + AT_ONCE]
                for name, content in zip(some, pool.map(read, some), strict=True):
                    if content is not None:
                        yield name, content

    def listing(self, folder: str) -> dict[str, storage.Found]:
        """Name of every file in a folder, without its extension → what is said of it."""
        files = storage.list_files(self.path(folder))
        return {
            name.removesuffix(".json"): found
            for name, found in files.items()
            if name.endswith(".json")
        }

    def names(self, folder: str) -> set[str]:
        """Of the files in a folder, without their extension."""
        return set(self.listing(folder))

    def write(self, path: str, content: Any) -> str:
        """Create or replace a file; returns what it says."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        storage.write_bytes(self.path(path), text.encode())
        return text

    def remove(self, path: str) -> None:
        """Delete a file if it exists, of whatever kind."""
        storage.remove(self.path(path))

    def clear(self, folder: str) -> None:
        """Delete all that is in a folder, of whatever kind."""
        paths = [f"{folder}/{name}" for name in storage.list_names(self.path(folder))]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(self.remove, paths))

    def damaged(self, path: str, why: str) -> ConfigError:
        """What to raise for a file that says nothing that it may say."""
        return ConfigError(
            f"{storage.public(self.path(path))}: damaged ({why}); delete it, and run again the "
            "command that has made this output"
        )
