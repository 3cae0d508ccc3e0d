"""What all evaluations can be told; the text under a field is its help text."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pipeline import storage
from pipeline.config import AnnotateConfig, EngineConfig, MethodConfig, ModelConfig, PromptConfig
from pipeline.errors import ConfigError
from pipeline.inputs.shards import Shard, find_shards


@dataclass(frozen=True)
class CountingRun(AnnotateConfig):
    """An evaluation, as the engine takes it: what its counts depend on is its result settings."""

    counted: dict[str, Any] = field(default_factory=dict)
    """Settings that the counts depend on, as JSON values."""

    def results(self) -> dict[str, Any]:
        """These settings."""
        return self.counted


@dataclass(frozen=True)
class EvaluationConfig(MethodConfig):
    """One evaluation: shards in, counts out, metrics from the sum of the counts."""

    output: str = ""
    """Directory or s3:// / gs:// prefix for counts and metrics."""
    input: list[str] | str = ""
    """Shards of images, spelled as for annotate.py, to score the maps of a method on them."""
    input_root: str = ""
    """Prefix taken off shard URIs before they are named, so that data can move."""
    limit_shards: int | None = None
    """Take only the first shards."""
    limit_samples: int | None = None
    """Take only the first samples of every shard."""
    max_pixels: int = 100_000_000
    """Images with more pixels than this are rejected unread (decompression bombs)."""
    retry_failed: bool = False
    """Try the shards again that an earlier run gave up."""
    allow_failed: int = 0
    """Exit with 0 although so many shards failed; the metrics say which are missing."""
    on_mismatch: Literal["refuse", "redo"] = "refuse"
    """What to do with an output that other settings made: refuse, or delete it and start over."""
    templates: list[str] = field(default_factory=lambda: ["a photo of a {}."])
    """Sentences that a class name is put into; several are averaged as embeddings."""
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    LOCATIONS: ClassVar[tuple[str, ...]] = ("output", "input", "input_root")
    """Settings that are paths, patterns of paths, or URIs."""
    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = ("output",)
    """Those of them that worker processes read or write."""
    IMAGE_SIZE: ClassVar[int | None] = None
    """Side of the square that images become, where --model.image_size does not say."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("limit_shards", "limit_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        predictions = getattr(self, "predictions", "")
        if predictions and self.output and _same(predictions, self.output):
            raise ConfigError(
                f"--output {self.output}: is --predictions itself; name another place"
            )

    @property
    def patterns(self) -> list[str]:
        """`input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    def shards(self) -> list[Shard]:
        """What is evaluated.

        Raises:
            FileNotFoundError: a pattern of --input matches nothing.
        """
        return find_shards(self.patterns, self.input_root)[: self.limit_shards]

    def located(self) -> EvaluationConfig:
        """The same settings with absolute paths: workers have other working directories.

        Raises:
            ConfigError: there is no output, it is a file, or settings have no effect.
        """
        if not self.output:
            raise ConfigError("--output is needed: a directory or an s3:// or gs:// prefix")
        if not storage.is_uri(self.output) and os.path.isfile(self.output):
            raise ConfigError(f"--output {self.output}: is a file; name a directory")
        if getattr(self, "predictions", ""):
            self._refuse_map_settings()
        paths = self._each(self.READ_BY_WORKERS, storage.absolute)
        return dataclasses.replace(self, model=self.model.located(), **paths)

    def _refuse_map_settings(self) -> None:
        """Written masks are scored as they are: what makes maps would be ignored.

        Raises:
            ConfigError: such a setting is given.
        """
        maps = {field.name for field in dataclasses.fields(MethodConfig)}
        default = {f.name: f for f in dataclasses.fields(self)}
        for name in sorted(maps | {"model", "templates"} | ({"threshold"} & default.keys())):
            value, field = getattr(self, name), default[name]
            made = field.default_factory
            usual = field.default if made is dataclasses.MISSING else made()
            if value != usual:
                raise ConfigError(
                    f"--{name}: has no effect beside --predictions, whose masks are scored as they "
                    "were written; leave it out, or give --input instead"
                )

    def described(self) -> dict[str, Any]:
        """All settings as JSON values, without credentials."""
        settings = dataclasses.asdict(self) | {"model": self.model.described()}
        return settings | self._each(self.LOCATIONS, storage.without_secrets)

    def _each(self, names: Iterable[str], change: Callable[[str], str]) -> dict[str, Any]:
        """The settings of these names that are given, each location in them changed."""
        values = {name: getattr(self, name) for name in names}
        return {
            name: change(value) if isinstance(value, str) else [change(item) for item in value]
            for name, value in values.items()
            if value
        }

    def run(self, results: dict[str, Any]) -> CountingRun:
        """The same settings as the engine takes them, for counts that depend on `results`."""
        return CountingRun(
            counted=results,
            input=self.input,
            output=self.output,
            input_root=self.input_root,
            limit_shards=self.limit_shards,
            limit_samples=self.limit_samples,
            max_pixels=self.max_pixels,
            retry_failed=self.retry_failed,
            **self.maps_settings(),
            model=self.sized_model(),
            prompts=PromptConfig(templates=self.templates),
            engine=self.engine,
        )

    def sized_model(self) -> ModelConfig:
        """The model with the size of its input."""
        size = self.model.image_size or self.IMAGE_SIZE
        return dataclasses.replace(self.model, image_size=size)

    def method_results(self) -> dict[str, Any]:
        """What decides the maps of a method, as JSON values."""
        return {
            **self.maps_settings(),
            "templates": self.templates,
            "model": self.sized_model().results(),
            "limit_samples": self.limit_samples,
            "max_pixels": self.max_pixels,
        }


def _same(first: str, second: str) -> bool:
    return storage.normalise(first) == storage.normalise(second)
