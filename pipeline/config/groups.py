"""Settings that belong together, a group of flags each; the text under a field is its help."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pipeline import storage
from pipeline.config.heard import named_in
from pipeline.config.identity import identity_of, since
from pipeline.errors import ConfigError
from pipeline.storage import digests

DEFAULT_TEMPLATES = ("a photo of a {}.",)
GPU_THREADS = 4
"""Of a worker where a GPU is and --engine.threads does not say."""
NODE_ID = "ray.io/node-id"
"""The label in which every node of Ray has its id."""
_NAME = r"[a-zA-Z0-9](?:[\w.-]{0,61}[a-zA-Z0-9])?"
LABEL_NAME = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
LABEL_WANTED = re.compile(rf"!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))", re.ASCII)
"""What Ray takes for the name of a label, and for what a node's is to be."""
NO_FILTER = -1.0
"""Level of presence that no cosine fails to exceed."""


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

    source: Literal["labels", "caption", "cls", "vocabulary", "embeddings", "audio"] = "labels"
    """labels: a list of class names in the sample's .json; caption: the sample's text; cls: the
    class id in .cls; vocabulary: the most similar classes of the class file; embeddings: vectors
    in .npy with their names in the .json; audio: its .wav, .flac, .mp3 or .ogg files, for models
    that hear."""
    field: str = ""
    """The json field with the list of names (default labels) or the caption (default: the .txt)."""
    classes: str = ""
    """Class file: YAML list of id, name and, if wanted, prompts (synonyms), sounds (files),
    threshold, presence."""
    templates: list[str] = dataclasses.field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    """Sentences that a class name is put into; several are averaged as embeddings."""
    max_per_image: int = 1000
    """Samples with more prompts than this are rejected."""
    top_k: int = 5
    """vocabulary: classes explained per image at the most."""
    presence: float | None = None
    """Prompts whose score, the cosine with the image, is not above this are counted as absent and
    get no mask; -1: none is. A presence in the class file beats it; vocabulary needs one of the
    two. jobs/calibrate.py finds levels."""
    calibration: str = since("", "")
    """calibration.json of jobs/calibrate.py: masks get the probability that they are of something
    that is there."""
    max_seconds: float = since(300.0, 300.0)
    """audio: samples with a longer sound are rejected."""

    def __post_init__(self) -> None:
        check_templates("--prompts.templates", self.templates)
        if self.source in ("cls", "vocabulary") and not self.classes:
            raise ConfigError(
                f"--prompts.source {self.source} needs a class file: --prompts.classes"
            )
        if self.presence is not None and not NO_FILTER <= self.presence <= 1:
            raise ConfigError(
                f"--prompts.presence {self.presence}: a cosine, from -1 (no filter) to 1"
            )
        if not self.max_seconds > 0:
            raise ConfigError(f"--prompts.max_seconds {self.max_seconds}: must be above 0")
        for name in ("top_k", "max_per_image"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--prompts.{name} {getattr(self, name)}: must be at least 1")

    def absolute(self) -> PromptConfig:
        """The same settings with absolute paths of the files that they name."""
        classes, calibration = (
            path and storage.absolute(path) for path in (self.classes, self.calibration)
        )
        return dataclasses.replace(self, classes=classes, calibration=calibration)

    @property
    def filters(self) -> bool:
        """Whether prompts may be absent: by the run's level, or by those of the class file."""
        if self.presence is None:
            return self.source == "vocabulary"
        return self.presence > NO_FILTER

    @property
    def hears(self) -> bool:
        """Whether sounds may be looked for; the class file is read for it."""
        return self.source == "audio" or bool(self._sounds())

    def _sounds(self) -> list[str]:
        if not self.classes:
            return []
        return named_in(self.classes, storage.read_bytes(self.classes))

    def identity(self) -> dict[str, Any]:
        """The settings as JSON values, with files by their contents, so that they can move."""
        identity = identity_of(self)
        for name in ("classes", "calibration"):
            if getattr(self, name):
                identity[name] = digests.of_bytes(storage.read_bytes(getattr(self, name)))
        if sounds := self._sounds():
            identity["sounds"] = [digests.of_bytes(storage.read_bytes(sound)) for sound in sounds]
        # A filter was for vocabularies only, and left nothing in the tables; -1 stood for none.
        identity["presence"] = NO_FILTER if self.presence is None else self.presence
        return identity | ({"absent": "stored"} if self.filters else {})


@dataclass(frozen=True)
class ExecutionConfig:
    """How the work is run; nothing here changes what a mask means."""

    executor: Literal["ray", "local"] = "ray"
    """ray: actors on a Ray cluster (a local one where none is running); local: this process."""
    workers: int = 0
    """Ray actors; 0 means as many as the GPUs of the cluster have room for, or one where there is
    none."""
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
    gpus_per_worker: float = 1.0
    """GPUs of each worker, where it has any: 0.5 puts two of them on a GPU."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray sets aside for each worker on its node."""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Labels that the nodes of workers must have, as {ray.io/accelerator-type: H100}; instead of a
    value also "!A100", "in(H100, H200)" or "!in(T4, L4)"."""
    price: float | None = None
    """What an hour of one GPU costs (of one worker, where there is no GPU), in any currency: what
    is printed and written down then says what the run costs in it."""
    gpu: str = ""
    """GPU that --dry_run reckons with, such as H100; without it the one that --engine.labels asks
    for as ray.io/accelerator-type, or that of this machine."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            may_be_0 = field.name in ("workers", "threads", "cpus_per_worker")
            if isinstance(value, int | float) and value < (0 if may_be_0 else 1e-9):
                must = "must not be negative" if may_be_0 else "must be above 0"
                raise ConfigError(f"--engine.{field.name} {value}: {must}")

        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ConfigError(
                f"--engine.gpus_per_worker {self.gpus_per_worker}: give a share of one GPU, as "
                "0.5, or whole GPUs"
            )
        for name, wanted in self.labels.items():
            if not LABEL_NAME.fullmatch(name) or not LABEL_WANTED.fullmatch(wanted):
                raise ConfigError(
                    f"--engine.labels {{{name}: {wanted!r}}}: give {{name: value}}; a value is "
                    "H100, !H100, in(H100, H200) or !in(T4, L4)"
                )
        if NODE_ID in self.labels:
            raise ConfigError(
                f"--engine.labels: by {NODE_ID} broken nodes are left out; choose by another label"
            )

    def takes_gpu_here(self) -> bool:
        """Whether a worker in this process has a GPU."""
        wants_any = self.device == "auto" and torch.cuda.is_available()
        return wants_any or self.device.startswith("cuda")

    def cpu_threads(self) -> int:
        """Threads of each worker: the same for every executor, for torch splits sums by it."""
        return self.threads or (GPU_THREADS if torch.cuda.is_available() else os.cpu_count() or 1)
