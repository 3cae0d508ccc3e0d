"""What the report can be told; the text under a field is its help text."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pipeline import storage
from pipeline.errors import ConfigError

MOST_EXAMPLES, MOST_CLASSES = 50, 1000


@dataclass(frozen=True)
class ReportConfig:
    """A page about an annotation output: report.html, and its numbers as report.json."""

    predictions: str = ""
    """Output of an annotation run, finished or not."""
    output: str = ""
    """Directory or s3:// / gs:// prefix for report.html and report.json; may be --predictions."""
    images: list[str] | str = field(default_factory=list)
    """Shards with the images, as --input of annotate.py has them; without it, they are looked for
    where the run read them."""
    input_root: str = ""
    """The --input_root of the run, or where the data is now that lay there: shards of --images lose
    it before they are named, and without --images it is put before the names."""
    examples: int = 6
    """Masks shown of each kind: random, highest score, lowest score; 0 for a page without pictures,
    which needs no shards."""
    examples_per_class: int = 2
    """Masks shown of each of the classes with the most masks."""
    picture_classes: int = 12
    """So many classes are shown in pictures."""
    classes: int = 200
    """Rows of the table of classes; the rest, those with the fewest masks, are one row."""
    seed: int = 0
    """Of what is drawn at random."""

    def __post_init__(self) -> None:
        if not self.predictions or not self.output:
            raise ConfigError(
                "--predictions and --output are needed: an annotation output, and a directory for "
                "report.html"
            )
        for name in ("examples", "examples_per_class", "picture_classes"):
            if not 0 <= getattr(self, name) <= MOST_EXAMPLES:
                raise ConfigError(f"--{name} {getattr(self, name)}: from 0 to {MOST_EXAMPLES}")
        if not 1 <= self.classes <= MOST_CLASSES:
            raise ConfigError(f"--classes {self.classes}: from 1 to {MOST_CLASSES}")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: must not be negative")
        if not storage.is_uri(self.output) and os.path.isfile(self.output):
            raise ConfigError(f"--output {self.output}: is a file; name a directory")

    @property
    def patterns(self) -> list[str]:
        """`images` as a list."""
        return [self.images] if isinstance(self.images, str) else self.images
