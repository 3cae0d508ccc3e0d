"""Which settings make two outputs comparable: the identity of a run, and its fingerprint.

A setting that is new to this program must not make a stranger of what was written before it: its
field says what runs did without it (`since`), and as long as it stands at that, it is no part of
the identity.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Collection
from typing import Any

from pipeline.storage import digests, locations

BEFORE = "before"


def since(default: Any, before: Any) -> Any:
    """A field of a settings class that came after outputs had been written without it.

    Args:
        default: of the field.
        before: the value at which results are what they were before the field existed.
    """
    return dataclasses.field(default=default, metadata={BEFORE: before})


def identity_of(settings: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a settings dataclass as JSON values, by name.

    Args:
        settings: a dataclass; one in a field of it has an `identity` of its own, or all its fields.
        leave_out: fields that change nothing about results.
    """
    identity: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        unchanged = BEFORE in field.metadata and value == field.metadata[BEFORE]
        if field.name not in leave_out and not unchanged:
            identity[field.name] = _plain(value)
    return identity


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return copy.deepcopy(value)
    own = getattr(value, "identity", None)
    return own() if own else identity_of(value)


def public(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass as JSON values; URIs among them without credentials."""
    plain: dict[str, Any] = _public(dataclasses.asdict(settings))
    return plain


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_public(each) for each in value]
    return locations.public(value) if isinstance(value, str) else value


def fingerprint(identity: dict[str, Any]) -> str:
    """16 hex digits over an identity: equal ones mean comparable outputs."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return digests.of_text(canonical)
