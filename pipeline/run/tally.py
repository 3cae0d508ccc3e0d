"""How many images are done."""

from __future__ import annotations

import threading


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
