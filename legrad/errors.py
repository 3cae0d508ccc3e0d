"""What is raised for a model that cannot be explained, and hints at names that may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SUPPORTED = (
    "supported: transformers over patch tokens with standard pre-norm blocks, namely open_clip's "
    "VisionTransformer with CLS, average or CoCa pooling, and timm's VisionTransformer and Eva, "
    "alone or inside open_clip, with CLS, average or map pooling, rotary positions included"
)


class UnsupportedModelError(ValueError):
    """The model has no exact explanation here; the message says what was found, why, what has."""

    def __init__(self, found: str, reason: str) -> None:
        """Compose the one-line message from what was found and why it is refused."""
        super().__init__(f"{found}: {reason} ({SUPPORTED})")
        self.reason = f"{found}: {reason}"


def near(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name: which ones may be meant; empty if none is near.

    Args:
        name: what was given.
        known: the names that there are.
        most: so many are shown, the nearest first.
        cutoff: how similar they have to be, from 0 to 1 (the same).
    """
    names = difflib.get_close_matches(name, list(known), most, cutoff)
    return f" (did you mean {_or(names)}?)" if names else ""


def _or(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
