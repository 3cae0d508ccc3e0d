"""Images with one class each, and the classes to choose from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import open_clip

from pipeline import storage
from pipeline.errors import Reject, naming
from pipeline.inputs.classes import is_blank, load_classes
from pipeline.inputs.tars import RawSample

BAD_LABEL = "bad_label"
"""Why a sample is rejected whose label is none of the classes."""


@dataclass(frozen=True)
class ClassNames:
    """The classes that a model chooses from.

    Attributes:
        names: what they are called.
        ids: what a sample's `.cls` calls each of them.
        field: the json field with class names, to read instead of `.cls`; empty for `.cls`.
    """

    names: list[str]
    ids: list[int]
    field: str = ""

    @classmethod
    def load(cls, classes: str, field: str) -> ClassNames:
        """The classes of a class file; without one, open_clip's 1000 names for ImageNet."""
        if not classes:
            names = list(open_clip.IMAGENET_CLASSNAMES)
            return cls(names, list(range(len(names))), field)
        with naming(f"--classes {storage.public(classes)}"):
            found = load_classes(classes, "--classes")
        return cls([category.name for category in found], [c.id for c in found], field)

    def target(self, raw: RawSample) -> int | None:
        """Position of a sample's class; None where it has no label, or more than one.

        Raises:
            Reject: `bad_label`: it is none of the classes.
        """
        if self.field:
            return self._named(raw)
        text = raw.fields.get("cls", b"").decode("utf-8-sig", "replace").strip()
        if is_blank(text):
            return None
        if not re.fullmatch("[0-9]{1,18}", text) or int(text) not in self.ids:
            raise Reject(BAD_LABEL, f".cls {text[:40]!r} is no class")
        return self.ids.index(int(text))

    def _named(self, raw: RawSample) -> int | None:
        try:
            labels = json.loads(raw.fields.get("json", b"{}")).get(self.field, [])
        except (ValueError, AttributeError, RecursionError) as error:
            raise Reject(BAD_LABEL, f"the .json does not parse: {error}") from error
        names = (
            [label for label in labels if not is_blank(label)] if isinstance(labels, list) else []
        )
        if len(names) != 1:
            return None
        name = names[0].strip() if isinstance(names[0], str) else names[0]
        if name not in self.names:
            raise Reject(BAD_LABEL, f"{str(name)[:40]!r} is no class")
        return self.names.index(name)
