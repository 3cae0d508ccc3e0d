"""Everything a run can be told, as frozen dataclasses; the text under a field is its help text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pipeline.demo.model import NAME as DEMO_MODEL

SCHEMA_VERSION = 1


class ConfigError(ValueError):
    """A setting that cannot work; the message says which one and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """The CLIP that is explained."""

    name: str = DEMO_MODEL
    """Model name as open_clip lists it (or the bundled legrad-demo)."""
    pretrained: str = "demo"
    """Weights: an open_clip tag, a local file, demo, or random (to try out speed and memory)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the vision and text towers; maps and scores come back in float32."""
    image_size: int | None = None
    """Side of the square that images are squashed to; the model's own when not given."""

    def __post_init__(self) -> None:
        if (self.name == DEMO_MODEL) != (self.pretrained == "demo") and self.pretrained != "random":
            raise ConfigError(
                f"--model.name {self.name} --model.pretrained {self.pretrained}: the weights "
                f"called demo belong to {DEMO_MODEL} alone; name an open_clip tag, a file or random"
            )


@dataclass(frozen=True)
class PromptConfig:
    """Where the prompts of an image come from."""

    source: Literal["labels"] = "labels"
    """labels: a list of class names in the sample's .json."""
    field: str = "labels"
    """The json field that holds the list."""
    templates: list[str] = dataclasses.field(default_factory=lambda: ["a photo of a {}."])
    """Sentences that a class name is put into; several are averaged as embeddings."""

    def __post_init__(self) -> None:
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise ConfigError(
                f"--prompts.templates {self.templates}: every template needs one {{}} for the name"
            )


@dataclass(frozen=True)
class MaskConfig:
    """How a heatmap becomes a mask."""

    threshold: float = 0.5
    """A pixel is foreground where its heat, 0 to 1 over each map, exceeds this."""
    heat: bool = True
    """Also store the patch-grid heatmap, so that masks can be made again at another threshold."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"--mask.threshold {self.threshold}: give a number from 0 to below 1")


@dataclass(frozen=True)
class ReadConfig:
    """What is accepted as input."""

    max_pixels: int = 100_000_000
    """Images with more pixels than this are rejected unread (decompression bombs)."""


@dataclass(frozen=True)
class EngineConfig:
    """How the work is run; nothing here changes what a mask means."""

    executor: Literal["ray", "local"] = "ray"
    """ray: actors on a Ray cluster (a local one where none is running); local: this process."""
    workers: int = 0
    """Ray actors; 0 means one per GPU of the cluster, or one where there is none."""
    device: str = "auto"
    """Device of the model: auto takes a GPU where there is one."""
    threads: int = 0
    """CPU threads of each worker; 0 means all cores without a GPU, and 4 with one."""
    batch_size: int = 16
    """Images per forward pass."""
    memory_budget: int = 1 << 30
    """Bytes for LeGrad's temporaries; sets how many prompts are explained at once."""
    log_seconds: float = 10.0
    """Seconds between progress lines."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "memory_budget", "log_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"--engine.{name} {getattr(self, name)}: must be above 0")

    def cpu_threads(self) -> int:
        """Threads of each worker: the same for every executor, for torch splits sums by it."""
        return self.threads or (4 if torch.cuda.is_available() else os.cpu_count() or 1)


@dataclass(frozen=True)
class AnnotateConfig:
    """One annotation run."""

    input: list[str] | str = ""
    """Shards: paths, globs, {brace..patterns}, directories, s3:// or gs:// URIs, or @list.txt.
    Without it, the bundled demo is annotated."""
    output: str = ""
    """Directory or s3:// / gs:// prefix for the results (for the demo: out/demo)."""
    input_root: str = ""
    """Prefix taken off shard URIs before they are named, so that data can move."""
    method: str = "legrad"
    """Explainability method (a name in legrad.METHODS)."""
    layers: int | list[int] | None = None
    """Blocks to explain: all, the last k, or a list of 0-based indices."""
    algorithm: Literal["closed_form", "autograd"] = "closed_form"
    """closed_form: LeGrad without autograd; autograd: its slow, literal definition."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    prompts: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)
    read: ReadConfig = dataclasses.field(default_factory=ReadConfig)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)

    @property
    def patterns(self) -> list[str]:
        """`input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    def results(self) -> dict[str, Any]:
        """The settings that change what is written for a shard, as JSON values."""
        settings = dataclasses.asdict(self)
        for name in ("input", "output", "input_root", "engine"):
            del settings[name]
        return {"schema_version": SCHEMA_VERSION, **settings}

    def fingerprint(self) -> str:
        """16 hex digits over `results`: equal fingerprints mean comparable outputs."""
        canonical = json.dumps(self.results(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
