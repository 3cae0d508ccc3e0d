"""Who counts the images while a pass runs.

On Ray this is a process of its own, which starts in a second because nothing here needs a model.
"""

from __future__ import annotations

import threading
from typing import Any


class Tally:
    """Counts images from several threads."""

    def __init__(self) -> None:
        self._images = 0
        self._lock = threading.Lock()

    def add(self, images: int) -> None:
        """Count some more."""
        with self._lock:
            self._images += images

    def total(self) -> int:
        """All that were counted."""
        return self._images


class Register(Tally):
    """Counts the images of a pass, and knows its actors."""

    def __init__(self) -> None:
        super().__init__()
        self._actors: dict[str, Any] = {}

    def join(self, name: str, actor: Any) -> None:
        """Take an actor down; once more when it has been started again."""
        self._actors[name] = actor

    def actors(self) -> list[Any]:
        """All that ever joined."""
        return list(self._actors.values())
