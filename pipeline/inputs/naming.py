"""How the names of a tar's members are read: which belong together, and which is the image."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import features
from webdataset.tariterators import base_plus_ext

KeyEnd = Literal["first_dot", "last_dot"]

IMAGE_FIELDS = (
    *("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"),
    *(("avif",) if features.check("avif") else ()),
)
"""Extensions of what `pipeline.inputs.images` decodes; of several in a sample, the first."""
META = re.compile(r"__[^/]*__($|/)")
"""Names that WebDataset takes for notes about the archive."""
NO_DATA = re.compile(r"(^|/)(\.[^/]*$|__MACOSX/)")
"""Hidden files, among them those in which a Mac's tar keeps what it knows of the file beside them.
They would tear its sample apart: `a/._b.jpg` is between `a/b.jpg` and `a/b.json`."""


@dataclass(frozen=True)
class Naming:
    """The rules of a run.

    Attributes:
        key_end: where the key of a sample ends: at the first dot of the base name, as WebDataset
            has it, or at the last.
        image: the field that is the image; empty for the first of `IMAGE_FIELDS`.
    """

    key_end: KeyEnd = "first_dot"
    image: str = ""

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Naming:
        """The rules of a run whose settings are known by its identity."""
        return cls(identity.get("key_end", cls.key_end), identity.get("image_field", cls.image))

    def split(self, name: str) -> tuple[str, str] | None:
        """Key and lower-cased field of a member; None for one that belongs to no sample."""
        if META.match(name) or NO_DATA.search(name):
            return None
        key, extension = base_plus_ext(name)
        if key is None:
            return None
        if self.key_end == "last_dot":
            key, _, extension = name.rpartition(".")
        return key, extension.lower()

    def image_field(self, fields: Container[str]) -> str | None:
        """Which of the fields of a sample is its image; None where none is."""
        names = (self.image,) if self.image else IMAGE_FIELDS
        return next((name for name in names if name in fields), None)


AS_WEBDATASET = Naming()
"""What holds where a run says nothing else."""
