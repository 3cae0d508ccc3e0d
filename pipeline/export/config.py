"""What every export can be told; the text under a field is its help text."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.outputs.selection import SelectionConfig
from pipeline.storage import digests

SPLIT = re.compile(r"([A-Za-z0-9_-]+)=([0-9.]+)")


@dataclass(frozen=True)
class ExportConfig:
    """An export of a run's masks."""

    predictions: str = ""
    """Output of an annotation run."""
    output: str = ""
    """Where to write the export."""
    select: SelectionConfig = field(default_factory=SelectionConfig)
    """Which masks are taken."""
    split: str = ""
    """Parts of the data with their shares, as train=0.9,val=0.1: an image's part follows from a
    hash of its key."""
    instances: Literal["one", "components"] = "one"
    """one: a mask is one object; components: every part of it that touches no other is one."""
    part_area: float = 0.0
    """components: smaller parts are left out; pixels from 1 up, a fraction of the image below 1."""
    caption_category: str = ""
    """Category of the masks that have none, which are those of captions; without it they are left
    out."""
    file_name: str = ""
    """Pattern for the names of the images, of {file_name} (in the tar), {key}, {shard} and
    {image_id}, such as {key}.jpg; without it, the name in the tar."""
    log_seconds: float = 10.0
    """Seconds between progress lines."""

    FORMAT: ClassVar[str] = ""
    """The sub-command."""
    BY_STEM: ClassVar[bool] = False
    """The files of an image are named after it without its extension."""
    NO_RESULT: ClassVar[tuple[str, ...]] = ("predictions", "output", "log_seconds")

    def __post_init__(self) -> None:
        if not self.predictions or not self.output:
            raise ConfigError("--predictions and --output are needed: a run's output and a place")
        if storage.is_inside(self.output, self.predictions):
            raise ConfigError(
                f"--output {self.output}: is in --predictions, whose readers would take it for a "
                "part of the run; name another place"
            )
        if self.part_area < 0:
            raise ConfigError(f"--part_area {self.part_area}: must not be negative")
        if self.part_area and self.instances == "one":
            raise ConfigError("--part_area: has no effect without --instances components")
        if self.log_seconds <= 0:
            raise ConfigError(f"--log_seconds {self.log_seconds}: must be above 0")
        self.shares()
        self.named("", "", "", 0)

    def shares(self) -> dict[str, float]:
        """Parts of the data and their shares; the one part of all has no name.

        Raises:
            ConfigError: they are no shares.
        """
        if not self.split:
            return {"": 1.0}
        found = [SPLIT.fullmatch(part.strip()) for part in self.split.split(",")]
        try:
            pairs = [(match[1], float(match[2])) for match in found if match is not None]
        except ValueError:
            pairs = []
        shares = dict(pairs)
        if len(shares) != len(found) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
            raise ConfigError(
                f"--split {self.split}: give names with shares that add up to 1, such as "
                "train=0.9,val=0.1"
            )
        return shares

    def part_of(self, key: str) -> str:
        """The part of the data that an image belongs to: the same in every run and shard."""
        if not self.split:
            return ""
        *others, last = shares = self.shares()
        position = int(digests.of_text(key), base=16) / 2**64
        for name in others:
            position -= shares[name]
            if position < 0:
                return name
        return last

    def named(self, file_name: str | None, key: str, shard: str, image_id: int) -> str | None:
        """The name that --file_name gives an image; None where it has to have one and has not.

        Raises:
            ConfigError: the pattern has fields that there are not.
        """
        if not self.file_name:
            return file_name
        if file_name is None and "{file_name" in self.file_name:
            return None
        try:
            return self.file_name.format(
                file_name=file_name, key=key, shard=shard, image_id=image_id
            )
        except (LookupError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"--file_name {self.file_name}: not a pattern of {{file_name}}, {{key}}, {{shard}} "
                f"and {{image_id}} ({error!r})"
            ) from error

    def identity(self) -> dict[str, Any]:
        """The settings that change what is written, as JSON values."""
        settings = {k: v for k, v in asdict(self).items() if k not in self.NO_RESULT}
        return {"format": self.FORMAT} | settings
