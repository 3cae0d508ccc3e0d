"""The class file: which classes there are, what they are called, and when a mask of one counts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline import storage
from pipeline.config import ConfigError

FIELDS = {"id", "name", "prompts", "threshold"}
LARGEST_ID = 2**31 - 1
SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which JSON and YAML can spell and UTF-8 cannot."""


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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"--prompts.classes {location}: not YAML: {cause}") from error
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
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_ID:
        raise ConfigError(
            f"--prompts.classes {place}: id {number!r} is not a whole number from 0 to {LARGEST_ID}"
        )
    if not is_text(name):
        raise ConfigError(f"--prompts.classes {place}: name {name!r} is not a text")
    if not isinstance(prompts, list) or not prompts or not all(is_text(p) for p in prompts):
        raise ConfigError(f"--prompts.classes {place}: prompts {prompts!r} is not a list of texts")
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold < 1):
        raise ConfigError(f"--prompts.classes {place}: threshold {threshold!r} is not in [0, 1)")
    own = None if threshold is None else float(threshold)
    return Category(number, name, tuple(dict.fromkeys(prompts)), own)


def is_text(value: Any) -> bool:
    """Whether it is a string that says something, and can be written as UTF-8."""
    return isinstance(value, str) and bool(value.strip()) and not SURROGATES.search(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
