"""Settings that belong together, a group of flags each; the text under a field is its help."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pipeline import storage
from pipeline.config.identity import identity_of
from pipeline.errors import ConfigError
from pipeline.storage import digests

DEFAULT_TEMPLATES = ("a photo of a {}.",)


def check_templates(flag: str, templates: list[str]) -> None:
    """See that a class name can be put into each of some sentences.

    Raises:
        ConfigError: naming the flag.
    """
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise ConfigError(f"{flag} {templates}: every template needs one {{}} for the name")


@dataclass(frozen=True)
class PromptConfig:
    """Where the prompts of an image come from."""

    source: Literal["labels", "caption", "cls", "vocabulary", "embeddings"] = "labels"
    """labels: a list of class names in the sample's .json; caption: the sample's text; cls: the
    class id in .cls; vocabulary: the most similar classes of the class file; embeddings: vectors
    in .npy with their names in the .json."""
    field: str = ""
    """The json field with the list of names (default labels) or the caption (default: the .txt)."""
    classes: str = ""
    """Class file: YAML list of id, name and, if wanted, prompts (synonyms) and threshold."""
    templates: list[str] = dataclasses.field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    """Sentences that a class name is put into; several are averaged as embeddings."""
    max_per_image: int = 1000
    """Samples with more prompts than this are rejected."""
    top_k: int = 5
    """vocabulary: classes explained per image at the most."""
    presence: float = -1.0
    """vocabulary: classes whose cosine with the image is not above this are left out."""

    def __post_init__(self) -> None:
        check_templates("--prompts.templates", self.templates)
        if self.source in ("cls", "vocabulary") and not self.classes:
            raise ConfigError(
                f"--prompts.source {self.source} needs a class file: --prompts.classes"
            )
        for name in ("top_k", "max_per_image"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--prompts.{name} {getattr(self, name)}: must be at least 1")

    def absolute(self) -> PromptConfig:
        """The same settings with an absolute path of the class file."""
        if not self.classes:
            return self
        return dataclasses.replace(self, classes=storage.absolute(self.classes))

    def identity(self) -> dict[str, Any]:
        """The settings as JSON values, with the class file by its contents, so that it can move."""
        identity = identity_of(self)
        if self.classes:
            identity["classes"] = digests.of_bytes(storage.read_bytes(self.classes))
        return identity


@dataclass(frozen=True)
class MaskConfig:
    """How a heatmap becomes a mask."""

    rule: Literal["fixed", "mean"] = "fixed"
    """fixed: the threshold below, or that of the class file; mean: the mean heat of each map."""
    threshold: float = 0.5
    """A pixel is foreground where its heat, 0 to 1 over each map, exceeds this."""
    min_area: float = 0.0
    """Smaller masks are dropped: pixels from 1 up, a fraction of the image below 1."""
    heat: bool = True
    """Also store the patch-grid heatmap, so that masks can be made again at another threshold."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"--mask.threshold {self.threshold}: give a number from 0 to below 1")
        if self.min_area < 0:
            raise ConfigError(f"--mask.min_area {self.min_area}: must not be negative")

    def levels(self, own: Sequence[float | None]) -> list[float]:
        """The threshold of each map under the fixed rule: that of its class, or the run's."""
        return [self.threshold if level is None else level for level in own]


@dataclass(frozen=True)
class ExecutionConfig:
    """How the work is run; nothing here changes what a mask means."""

    executor: Literal["ray", "local"] = "ray"
    """ray: actors on a Ray cluster (a local one where none is running); local: this process."""
    workers: int = 0
    """Ray actors; 0 means one per GPU of the cluster, or one where there is none."""
    shards_in_flight: int = 2
    """Shards that a worker reads at once, so that its model never waits for the next one."""
    device: str = "auto"
    """Device of the model: auto takes a GPU where there is one now; say cuda on a cluster that
    adds its GPU nodes only when they are asked for."""
    threads: int = 0
    """CPU threads of each worker; 0 means all cores without a GPU, and 4 with one."""
    batch_size: int = 16
    """Images per forward pass."""
    memory_budget: int = 1 << 30
    """Bytes for LeGrad's temporaries; sets how many prompts are explained at once."""
    max_attempts: int = 3
    """Times that a shard is tried before it is given up."""
    stall_seconds: float = 1800.0
    """A worker that makes no progress for so long, with a shard or with loading its model, is
    ended, and the shard tried again."""
    patience_seconds: float = 1800.0
    """What fails for want of storage or network is tried again for so long; it costs no attempt."""
    log_seconds: float = 10.0
    """Seconds between progress lines."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            may_be_0 = field.name in ("workers", "threads")
            if isinstance(value, int | float) and value < (0 if may_be_0 else 1e-9):
                must = "must not be negative" if may_be_0 else "must be above 0"
                raise ConfigError(f"--engine.{field.name} {value}: {must}")

    def cpu_threads(self) -> int:
        """Threads of each worker: the same for every executor, for torch splits sums by it."""
        return self.threads or (4 if torch.cuda.is_available() else os.cpu_count() or 1)
