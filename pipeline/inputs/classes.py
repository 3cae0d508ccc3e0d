"""The class file: which classes there are, what they are called, and when a mask of one counts."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline import storage
from pipeline.config import heard
from pipeline.errors import ConfigError, unwrapped
from pipeline.storage import digests

FIELDS = {"id", "name", "prompts", "threshold", "presence", heard.FIELD}
LARGEST_ID = 2**31 - 1
"""COCO's readers and Parquet's int32 take no more."""
EXAMPLE = "- {id: 1, name: dog}"
QUOTES = "words that YAML takes for something else, such as no or 2024-01-01, need quotes"
UNSEEN = dict.fromkeys((0xAD, 0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
"""Characters without width that are no white space for Python."""
LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""In C it is ten times as fast, which of 20,000 classes is most of a start."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which JSON and YAML can spell and UTF-8 cannot."""


@dataclass(frozen=True)
class Category:
    """A class that can be looked for.

    Attributes:
        id: what `category_id` says: the class file's number, or `stable_id`.
        name: unique.
        prompts: names that are looked for; where they differ, the stronger map counts.
        threshold: heat that a foreground pixel exceeds; None for the run's.
        presence: score above which the class is there; None for the run's.
        sounds: sound files that are looked for beside the names, as the class file has them.
    """

    id: int
    name: str
    prompts: tuple[str, ...]
    threshold: float | None
    presence: float | None = None
    sounds: tuple[str, ...] = ()


def stable_id(name: str) -> int:
    """The id of a class that no file gives one: from 1 to `LARGEST_ID`, the same in every run.

    Shards are committed in any order, and by workers that know nothing of each other, so that ids
    cannot be counted up.
    """
    return int(digests.of_text(name), base=16) % LARGEST_ID + 1


def unlisted(ids: Mapping[str, int | None]) -> list[str]:
    """Of some names with their ids those that have it from no class file, sorted."""
    return sorted(name for name, number in ids.items() if number == stable_id(name))


def load_classes(location: str, flag: str = "--prompts.classes") -> list[Category]:
    """The classes of a YAML file, in its order.

    Args:
        location: of the file.
        flag: the setting that names it, for messages.

    Raises:
        ConfigError: the file is not as it should be; the message names line and entry.
        FileNotFoundError: there is no such file.
    """
    try:
        entries = _entries(location)
    except IsADirectoryError as error:
        raise ConfigError(f"{flag} {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{flag} {location}: {error}") from error
    places = [f"line {line}, entry {n}" for n, (line, _) in enumerate(entries, 1)]
    try:
        classes = [_category(entry, at) for at, (_, entry) in zip(places, entries, strict=True)]
        for field in ("name", "id"):
            _check_unique(field, [getattr(category, field) for category in classes], places)
    except ConfigError as error:
        raise ConfigError(f"{flag} {location}, {error}") from error
    return classes


def _entries(location: str) -> list[tuple[int, Any]]:
    """The items of the list that the file is, each with its line, from 1."""
    return list(_parsed(storage.read_bytes(location)))


@functools.lru_cache(maxsize=4)  # the settings, the prompts and the vocabulary each ask for it
def _parsed(data: bytes) -> tuple[tuple[int, Any], ...]:
    try:
        loader = LOADER(data)
        root = loader.get_single_node()
        twice = _repeated_key(root)  # of two values, YAML would take the last
        values = loader.construct_document(root) if root else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not YAML: {unwrapped(error)}") from error
    if twice:
        raise ConfigError(
            f"line {twice.start_mark.line + 1}: {twice.value} is there twice in one entry"
        )
    if not isinstance(root, yaml.SequenceNode) or not values:
        raise ConfigError(f"not a list of classes, each like {EXAMPLE}")
    return tuple((node.start_mark.line + 1, v) for node, v in zip(root.value, values, strict=True))


def _repeated_key(root: yaml.Node | None) -> yaml.ScalarNode | None:
    """The first key that an item of the list has for the second time."""
    for entry in root.value if isinstance(root, yaml.SequenceNode) else ():
        seen = set()
        for key, _ in entry.value if isinstance(entry, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    return key
                seen.add(key.value)
    return None


def _check_unique(field: str, values: Sequence[object], places: Sequence[str]) -> None:
    first: dict[object, str] = {}
    for value, place in zip(values, places, strict=True):
        if value in first:
            raise ConfigError(
                f"{place}: {field} {value!r} is there twice, first in {first[value]}; every class "
                "needs its own"
            )
        first[value] = place


def _category(entry: Any, place: str) -> Category:
    """One entry, checked field by field."""
    if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys() <= FIELDS:
        there = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise ConfigError(
            f"{place}: needs id and name, and may have prompts, sounds, threshold and presence; "
            f"it has {there}"
        )
    number, name = entry["id"], entry["name"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_ID:
        raise ConfigError(f"{place}: id {number!r} is not a whole number from 0 to {LARGEST_ID}")
    if not is_text(name):
        raise ConfigError(f"{place}: name {name!r} is not a text; {QUOTES}")
    texts, sounds = _prompts(entry, place)
    threshold = entry.get("threshold")
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold < 1):
        raise ConfigError(
            f"{place}: threshold {threshold!r} is not in [0, 1); leave it out for --mask.threshold"
        )
    presence = entry.get("presence")
    if presence is not None and not (_is_number(presence) and -1 <= presence <= 1):
        raise ConfigError(
            f"{place}: presence {presence!r} is not in [-1, 1]; leave it out for --prompts.presence"
        )
    own, level = (None if value is None else float(value) for value in (threshold, presence))
    return Category(number, name.strip(), texts, own, level, sounds)


def _prompts(entry: dict[str, Any], place: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts and files of sounds that stand for a class, each of them once."""
    texts, sounds = entry.get("prompts", [entry["name"]]), entry.get(heard.FIELD, [])
    if not isinstance(sounds, list) or not all(is_text(sound) for sound in sounds):
        raise ConfigError(f"{place}: sounds {sounds!r} is not a list of files, such as [bark.ogg]")
    if texts == [] == sounds:
        raise ConfigError(f"{place}: has neither prompts nor sounds: nothing to look for")
    if not isinstance(texts, list) or not all(is_text(text) for text in texts):
        raise ConfigError(
            f"{place}: prompts {texts!r} is not a list of texts, such as [dog, puppy]; {QUOTES}"
        )
    return tuple(dict.fromkeys(text.strip() for text in texts)), tuple(dict.fromkeys(sounds))


def is_blank(value: Any) -> bool:
    """Whether it is nothing, or a string of characters that nobody sees."""
    return value is None or (isinstance(value, str) and not value.translate(UNSEEN).strip())


def is_text(value: Any) -> bool:
    """Whether it is a string that says something, and can be written as UTF-8."""
    return isinstance(value, str) and not is_blank(value) and not SURROGATES.search(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
