"""Named bundles of settings, for masks of a quality and at a price: `--preset NAME`.

A preset is where the other settings start from: a flag, or a value of --config, beats what it says.
What it expands to is what a run stores and is known by, so that a name may mean something better
one day without taking the outputs away from those who have them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from legrad.errors import near
from pipeline.errors import ConfigError

Config = TypeVar("Config")
Preset = Mapping[str, Any]
"""Values by dotted name, as they are flags."""

PRESETS: dict[str, Preset] = {
    "paper": {},
    "balanced": {
        "decode": "scaled",
        "layers": 0.67,
        "mask.overlap": "winner",
        "mask.threshold": 0.37,
    },
    "fine": {
        "decode": "scaled",
        "layers": 0.67,
        "views.shifts": 2,
        "mask.overlap": "winner",
        "mask.refine": "regions_pamr",
        "mask.threshold": 0.42,
    },
    "balanced_contrast": {
        "decode": "scaled",
        "method": "legrad_text_span",
        "layers": 0.67,
        "mask.overlap": "winner",
        "mask.threshold": 0.14,
    },
    "fine_contrast": {
        "decode": "scaled",
        "method": "legrad_text_span",
        "layers": 0.67,
        "views.shifts": 2,
        "mask.overlap": "winner",
        "mask.refine": "regions_pamr",
        "mask.threshold": 0.24,
    },
}
"""paper: LeGrad as it was published; balanced: better masks at the same price; fine: every image is
looked at twice, and its colours draw the outline. Those with _contrast also contrast what is looked
for with all classes of the class file, which they need (docs/masks.md)."""


def settings_of(name: str, presets: Mapping[str, Preset] = PRESETS) -> Preset:
    """What a preset says.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in presets:
        hint = near(name, presets)
        raise ConfigError(f"--preset {name}: there is {', '.join(presets)}{hint}")
    return presets[name]


def expand(name: str, kind: type[Config], /, **settings: Any) -> Config:
    """The settings of a preset, and others that beat them: `expand("fine", AnnotateConfig, ...)`.

    Args:
        name: of the preset.
        kind: a dataclass of settings.
        settings: further ones of it. One of a group by its dotted name, `**{"mask.min_area": 20}`,
            or the whole group, where the preset says nothing about it.

    Raises:
        ConfigError: there is no such preset, a whole group would hide what it says, or a setting
            is wrong.
    """
    merged: dict[str, Any] = {**settings_of(name), **settings}
    groups: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for dotted, value in merged.items():
        group, _, field = dotted.rpartition(".")
        if group:
            groups.setdefault(group, {})[field] = value
        else:
            values[dotted] = value
    hidden = sorted(groups.keys() & values.keys())
    if hidden:
        raise ConfigError(
            f"{hidden[0]}: beside preset {name}, give its settings one by one, "
            f"{hidden[0]}.{next(iter(groups[hidden[0]]))} and so on"
        )
    for group, changes in groups.items():
        values[group] = dataclasses.replace(_default(kind, group), **changes)
    return kind(**values)


def _default(kind: type[Any], group: str) -> Any:
    (field,) = (field for field in dataclasses.fields(kind) if field.name == group)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
