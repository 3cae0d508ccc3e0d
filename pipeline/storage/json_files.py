"""The JSON files below an output, each written whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, one_line

READERS = 16


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

    def records(self, folder: str, names: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
        """Some of the records in a folder, by name: a request or two for each, many at once.

        Those that a run has taken back since they were listed are left out.
        """

        def read(name: str) -> dict[str, Any] | None:
            try:
                return self.record(f"{folder}/{name}.json")
            except FileNotFoundError:
                return None

        ordered = sorted(names)
        with ThreadPoolExecutor(READERS) as pool:
            contents = zip(ordered, pool.map(read, ordered), strict=True)
            return [(name, content) for name, content in contents if content is not None]

    def names(self, folder: str) -> set[str]:
        """Of the files in a folder, without their extension."""
        names = storage.list_names(self.path(folder), ".json")
        return {name.removesuffix(".json") for name in names}

    def write(self, path: str, content: Any) -> None:
        """Create or replace a file."""
        data = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        storage.write_bytes(self.path(path), data)

    def remove(self, path: str) -> None:
        """Delete a file if it exists, of whatever kind."""
        storage.remove(self.path(path))

    def damaged(self, path: str, why: str) -> ConfigError:
        """What to raise for a file that says nothing that it may say."""
        return ConfigError(
            f"{storage.public(self.path(path))}: damaged ({why}); delete it, and run again the "
            "command that has made this output"
        )
