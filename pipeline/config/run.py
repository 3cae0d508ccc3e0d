"""What a run can be told, and what annotation adds; the text under a field is its help text.

Annotation and every evaluation extend `RunConfig`: a field written there is a flag of each of them.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from pipeline import storage
from pipeline.config.groups import (
    DEFAULT_TEMPLATES,
    ExecutionConfig,
    PromptConfig,
)
from pipeline.config.identity import fingerprint, public, since
from pipeline.config.masks import MaskConfig
from pipeline.config.method import MethodConfig
from pipeline.config.model import ModelConfig
from pipeline.config.presets import PRESETS, Preset
from pipeline.errors import ConfigError

SCHEMA_VERSION = 2
"""Of the tables; `pipeline.outputs.versions` reads the older ones."""
DECODE_ENOUGH = 3.0
"""Pixels of the shorter side of a JPEG that is decoded smaller, to one of the size that it is
brought to next (docs/inputs.md)."""

Run = TypeVar("Run", bound="RunConfig")
Annotation = TypeVar("Annotation", bound="AnnotateConfig")


@dataclass(frozen=True)
class RunConfig(MethodConfig):
    """A run over shards: what is read, how it is worked on, where the results go."""

    input: list[str] | str = ""
    """Shards: paths, globs, {brace..patterns}, directories, s3://, gs:// or http(s):// URIs, or
    @list.txt."""
    output: str = ""
    """Directory or s3:// / gs:// prefix for the results."""
    input_root: str = ""
    """Prefix taken off shard URIs before they are named, so that data can move."""
    limit_shards: int | None = None
    """Take only the first shards."""
    limit_samples: int | None = None
    """Take only the first samples of every shard."""
    max_pixels: int = 100_000_000
    """Images with more pixels than this are rejected unread (decompression bombs)."""
    max_sample_bytes: int = 256 << 20
    """Samples whose members take more bytes than this are rejected unread."""
    key_end: Literal["first_dot", "last_dot"] = since("first_dot", before="first_dot")
    """Where the key of a sample ends in the names of its files: at the first dot, as WebDataset has
    it, or at the last, for photo.000.jpg, photo.001.jpg and so on."""
    image_field: str = since("", before="")
    """Extension of the image in a sample that has several, or another than the usual ones."""
    retry_failed: bool = False
    """Try all shards again that an earlier run gave up; those that failed for a reason that may
    pass, such as an outage, are tried again anyway."""
    allow_failed: int = 0
    """Exit with 0 although so many shards failed."""
    on_mismatch: Literal["refuse", "redo"] = "refuse"
    """What to do with an output that other settings made: refuse, or delete it and start over."""
    on_changed: Literal["say", "redo"] = "say"
    """What to do with shards that have another date than when they were done, but the same size:
    say so (copies change dates too), or do them again. Those of another size are done again."""
    verify: bool = False
    """Before anything else, read all that is committed and compare it with its checksums; what is
    damaged is named, and done again. With --dry_run or --status, it is only named."""
    log: Literal["text", "json"] = "text"
    """What is printed: lines for people, or every line as a JSON object with time, level, event,
    message and what the event is about."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    engine: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)

    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = ("output",)
    """Locations that worker processes read or write."""
    NO_RESULT: ClassVar[tuple[str, ...]] = (
        *("input", "output", "input_root"),
        *("retry_failed", "allow_failed", "on_mismatch", "on_changed", "verify", "log", "engine"),
    )
    IMAGE_SIZE: ClassVar[int | None] = None
    """Side of the square that images become, where --model.image_size does not say."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("limit_shards", "limit_samples", "max_pixels", "max_sample_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        if self.allow_failed < 0:
            raise ConfigError(f"--allow_failed {self.allow_failed}: must not be negative")
        if self.image_field != self.image_field.lower().lstrip("."):
            raise ConfigError(
                f"--image_field {self.image_field}: give an extension in small letters and without "
                "the dot before it, such as left.png"
            )

    @property
    def patterns(self) -> list[str]:
        """`input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    @property
    def name_templates(self) -> Sequence[str]:
        """Sentences that a class name is put into."""
        return DEFAULT_TEMPLATES

    def absolute(self: Run) -> Run:
        """The same settings with absolute paths: workers have other working directories.

        Raises:
            ConfigError: there is no output, or it is a file.
        """
        if not self.output:
            raise ConfigError("--output is needed: a directory or an s3:// or gs:// prefix")
        if not storage.is_uri(self.output) and os.path.isfile(self.output):
            raise ConfigError(f"--output {self.output}: is a file; name a directory")
        paths = self._each(self.READ_BY_WORKERS, storage.absolute)
        return dataclasses.replace(self, model=self.model.absolute(), **paths)

    def public(self) -> dict[str, Any]:
        """All settings as JSON values, without credentials."""
        return public(self)

    def recorded(self) -> dict[str, Any]:
        """The same, and what belongs to the weights, for `run.json`; files are read for it.

        Raises:
            ConfigError: a file beside the weights makes no sense or cannot be read.
        """
        settings = self.public()
        settings["model"]["weight_settings"] = self.model.weight_settings().values
        return settings

    def sized_model(self) -> ModelConfig:
        """The model with the size of its input."""
        size = self.model.image_size or self.IMAGE_SIZE
        return dataclasses.replace(self.model, image_size=size)

    def identity(self) -> dict[str, Any]:
        """The settings that change what is written for a shard, as JSON values."""
        return super().identity() | {"model": self.sized_model().identity()}

    def _each(self, names: Iterable[str], change: Callable[[str], str]) -> dict[str, Any]:
        """The settings of these names that are given, each location in them changed."""
        values = {name: getattr(self, name) for name in names}
        return {
            name: change(value) if isinstance(value, str) else [change(item) for item in value]
            for name, value in values.items()
            if value
        }


@dataclass(frozen=True)
class AnnotateConfig(RunConfig):
    """One annotation run; without --input, of the bundled demo, into out/demo."""

    max_reject_fraction: float = 0.5
    """A shard of which a larger part is rejected counts as failed: the settings are wrong."""
    salvage: bool = False
    """Of a shard that is cut short or damaged, commit in the last attempt what can be read, marked
    incomplete."""
    dry_run: bool = False
    """Print what would be done, and stop."""
    status: str = ""
    """Print the state of the run in this output directory, and stop."""
    decode: Literal["full", "scaled"] = since("full", before="full")
    """full: every stored pixel; scaled: JPEGs at 1/2, 1/4 or 1/8, as long as they keep enough for
    the model; faster where images are large. Sizes and masks are those of the stored image either
    way."""
    prompts: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)

    PRESETS: ClassVar[Mapping[str, Preset]] = PRESETS
    """What --preset can name."""
    NO_RESULT: ClassVar[tuple[str, ...]] = (
        *RunConfig.NO_RESULT,
        *("max_reject_fraction", "salvage", "dry_run", "status"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_reject_fraction >= 0:
            raise ConfigError(
                f"--max_reject_fraction {self.max_reject_fraction}: must not be negative"
            )
        if self.prompts.source == "audio" and not self.model.hears:
            raise ConfigError(
                f"--prompts.source audio: {self.model.name} has no audio tower; give --model.name "
                "imagebind_huge"
            )

    @property
    def name_templates(self) -> Sequence[str]:
        """Sentences that a class name is put into."""
        return self.prompts.templates

    @property
    def class_file(self) -> str:
        """Class file whose names texts are contrasted with where no option says which."""
        return self.prompts.classes

    def absolute(self: Annotation) -> Annotation:
        """The same settings with absolute paths; see `RunConfig.absolute`."""
        return dataclasses.replace(super().absolute(), prompts=self.prompts.absolute())

    @property
    def enough(self) -> float | None:
        """`DECODE_ENOUGH` where JPEGs are decoded smaller; None where all pixels are wanted."""
        return DECODE_ENOUGH if self.decode == "scaled" else None

    def identity(self) -> dict[str, Any]:
        """The settings that change what is written for a shard; files are read for it once."""
        return copy.deepcopy(self._identity)

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        rule = {"decode_enough": self.enough} if self.enough else {}
        return {"schema_version": SCHEMA_VERSION, **super().identity(), **rule}

    def fingerprint(self) -> str:
        """16 hex digits over the identity: equal fingerprints mean comparable outputs."""
        return fingerprint(self.identity())
