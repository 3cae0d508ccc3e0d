"""The class file: which classes there are, what they are called, and when a mask of one counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline import storage
from pipeline.config import ConfigError

FIELDS = {"id", "name", "prompts", "threshold"}


@dataclass(frozen=True)
class Category:
    """A class that can be looked for.

    Attributes:
        id: the class file's number; what `category_id` says.
        name: unique.
        prompts: names that are looked for; where they differ, the stronger map counts.
        threshold: heat that a foreground pixel exceeds; None for the run's.
    """

    id: int
    name: str
    prompts: tuple[str, ...]
    threshold: float | None


def load_classes(location: str) -> list[Category]:
    """The classes of a YAML file, in its order.

    Raises:
        ConfigError: the file is not as it should be; the message names the entry.
        FileNotFoundError: there is no such file.
    """
    try:
        entries = yaml.safe_load(storage.read_bytes(location))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts.classes {location}: not YAML: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"--prompts.classes {location}: not a list of classes")
    classes = [_category(entry, f"{location}, entry {n}") for n, entry in enumerate(entries, 1)]
    for what in ("name", "id"):
        repeated = [v for v, n in Counter(getattr(c, what) for c in classes).items() if n > 1]
        if repeated:
            raise ConfigError(
                f"--prompts.classes {location}: {what} {repeated[0]!r} is there twice"
            )
    return classes


def _category(entry: Any, place: str) -> Category:
    """One entry, checked field by field."""
    if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys() <= FIELDS:
        raise ConfigError(
            f"--prompts.classes {place}: needs id and name, and may have prompts and threshold"
        )
    number, name = entry["id"], entry["name"]
    prompts, threshold = entry.get("prompts", [name]), entry.get("threshold")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError(f"--prompts.classes {place}: id {number!r} is not a number from 0 up")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"--prompts.classes {place}: name {name!r} is not a text")
    if not isinstance(prompts, list) or not prompts or not all(_is_text(p) for p in prompts):
        raise ConfigError(f"--prompts.classes {place}: prompts {prompts!r} is not a list of texts")
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold < 1):
        raise ConfigError(f"--prompts.classes {place}: threshold {threshold!r} is not in [0, 1)")
    return Category(number, name, tuple(dict.fromkeys(prompts)), threshold)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
