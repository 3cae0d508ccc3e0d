"""Settings that would count for nothing beside others: they are refused, and not passed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from pipeline.errors import ConfigError


def refuse_given(settings: Any, names: Iterable[str], why: str) -> None:
    """Refuse what somebody has given.

    Args:
        settings: a dataclass whose fields have defaults.
        names: of fields that have to stand at theirs.
        why: they have to.

    Raises:
        ConfigError: naming the first of them that does not.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name in sorted(names):
        field = fields[name]
        made = field.default_factory
        usual = field.default if made is dataclasses.MISSING else made()
        if getattr(settings, name) != usual:
            raise ConfigError(f"--{name}: has no effect {why}")
