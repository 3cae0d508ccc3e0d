"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), in glibc's malloc.h."""
KEPT = 1 << 30
LARGEST = 32 << 20
"""What glibc accepts at most; larger blocks always come from the operating system."""


def keep_freed_memory() -> bool:
    """Have glibc keep up to 1 GiB of freed memory, instead of giving it back after every batch.

    A model on a CPU frees the activations of a batch together, and needs as much for the next:
    fresh pages cost a tenth of the time, one fault for each 4 KiB.

    Returns:
        Whether there is such a setting: other C libraries have none.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    kept: int = library.mallopt(TRIM_THRESHOLD, KEPT)
    mapped: int = library.mallopt(MMAP_THRESHOLD, LARGEST)
    return bool(kept and mapped)
