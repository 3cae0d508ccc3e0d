"""Everything a run can be told, as frozen dataclasses; the text under a field is its help text."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import posixpath
from dataclasses import dataclass
from typing import Any, Literal

import torch

import legrad
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.models.demo import NAME as DEMO_MODEL
from pipeline.storage import digests

SCHEMA_VERSION = 1

NO_TEXTS = ("null", "none", "auto")
"""Words that --empty_text does not take for a text, however they are spelled."""


@dataclass(frozen=True)
class ModelConfig:
    """The model that is explained."""

    name: str = DEMO_MODEL
    """A CLIP as open_clip lists it (or the bundled legrad-demo); for evaluate.py perturbation and
    layers also a classifier, timm/NAME with a name that timm lists."""
    pretrained: str = "demo"
    """Weights: an open_clip tag, timm (those of the classifier's name), a local file, an s3://,
    gs:// or http(s):// URI, demo, or random (to try out speed and memory)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the vision and text towers; maps and scores come back in float32."""
    image_size: int | None = None
    """Side of the square that images are squashed to; the model's own when not given."""

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"--model.image_size {self.image_size}: must be at least 1")
        if self.pretrained == "demo" and self.name != DEMO_MODEL:
            raise ConfigError(
                f"--model.name {self.name} --model.pretrained demo: these weights belong to "
                f"{DEMO_MODEL} alone; name an open_clip tag, timm, a file or random"
            )

    def located(self) -> ModelConfig:
        """The same settings with an absolute path, where the weights are a local file."""
        if not os.path.isfile(self.pretrained):
            return self
        return dataclasses.replace(self, pretrained=os.path.abspath(self.pretrained))

    def described(self) -> dict[str, Any]:
        """The settings as JSON values, without credentials."""
        pretrained = storage.without_secrets(self.pretrained)
        return dataclasses.asdict(self) | {"pretrained": pretrained}

    def results(self) -> dict[str, Any]:
        """The settings as JSON values, with weights in a file as what they are, wherever it lies.

        A local file stands in it by its contents; a remote one, which nobody wants to read for
        this alone, by its name and what `storage.version` says of it.
        """
        settings = dataclasses.asdict(self)
        if storage.is_uri(self.pretrained):
            name = posixpath.basename(storage.normalise(self.pretrained))
            settings["pretrained"] = f"{name}, {storage.version(self.pretrained)}"
        elif os.path.isfile(self.pretrained):
            settings["pretrained"] = f"sha256 {_digest(self.pretrained, *_age(self.pretrained))}"
        return settings


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
    templates: list[str] = dataclasses.field(default_factory=lambda: ["a photo of a {}."])
    """Sentences that a class name is put into; several are averaged as embeddings."""
    max_per_image: int = 1000
    """Samples with more prompts than this are rejected."""
    top_k: int = 5
    """vocabulary: classes explained per image at the most."""
    presence: float = -1.0
    """vocabulary: classes whose cosine with the image is not above this are left out."""

    def __post_init__(self) -> None:
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise ConfigError(
                f"--prompts.templates (evaluate.py: --templates) {self.templates}: every template "
                "needs one {} for the name"
            )
        if self.source in ("cls", "vocabulary") and not self.classes:
            raise ConfigError(
                f"--prompts.source {self.source} needs a class file: --prompts.classes"
            )
        for name in ("top_k", "max_per_image"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--prompts.{name} {getattr(self, name)}: must be at least 1")


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


@dataclass(frozen=True)
class EngineConfig:
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
    """A worker whose shard makes no progress for so long is ended, and the shard tried again."""
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


@dataclass(frozen=True, kw_only=True)  # so that they come last in --help
class MethodConfig:
    """How maps are made."""

    method: str = "legrad"
    """Explainability method (a name in legrad.METHODS)."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the method, as docs/methods.md lists them: '{relu: false}'. Where one takes texts,
    say imagenet (its 1000 classes), a class file, or a list of names."""
    layers: int | list[int] | None = None
    """Blocks to explain: null for the method's own choice (LeGrad: all), k for the last k, or a
    list of 0-based indices."""
    algorithm: Literal["closed_form", "autograd"] = "closed_form"
    """closed_form: LeGrad without autograd; autograd: its slow, literal definition."""
    empty_text: str = "auto"
    """A text without content; what it finds too is taken out of every map. auto: "a photo of a"
    for LeGrad on SigLIP, as its authors do, and none for all else; '' for none."""
    empty_threshold: float = 0.8
    """Level of that text's map, 0 to 1 over each image, above which a cell is taken out."""

    def __post_init__(self) -> None:
        try:
            legrad.check_options(self.method, {})
        except ValueError as error:
            raise ConfigError(f"--method {self.method}: {error}") from error
        try:
            legrad.check_options(self.method, self._plain_options())
        except ValueError as error:
            raise ConfigError(f"--options: {error}") from error
        if self.empty_text != "auto" and str(self.empty_text).lower() in NO_TEXTS:
            raise ConfigError(
                f"--empty_text {self.empty_text}: give auto, '' for none, or a text to look for"
            )
        if not 0 <= self.empty_threshold <= 1:
            raise ConfigError(f"--empty_threshold {self.empty_threshold}: must lie in 0 to 1")

    def maps_settings(self) -> dict[str, Any]:
        """These settings, as JSON values: all of them change results."""
        fields = dataclasses.fields(MethodConfig)
        settings = {field.name: copy.deepcopy(getattr(self, field.name)) for field in fields}
        settings["options"] |= legrad.check_options(self.method, self._plain_options())
        return settings

    def text_options(self) -> set[str]:
        """Which options `legrad` takes as tensors of text embeddings; here, they are names."""
        known = legrad.options_of(self.method)
        return {name for name in self.options if name in known and known[name] is None}

    def _plain_options(self) -> dict[str, Any]:
        texts = self.text_options()
        return {name: value for name, value in self.options.items() if name not in texts}


@dataclass(frozen=True)
class AnnotateConfig(MethodConfig):
    """One annotation run."""

    input: list[str] | str = ""
    """Shards: paths, globs, {brace..patterns}, directories, s3://, gs:// or http(s):// URIs, or
    @list.txt. Without it, the bundled demo is annotated."""
    output: str = ""
    """Directory or s3:// / gs:// prefix for the results (for the demo: out/demo)."""
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
    max_reject_fraction: float = 0.5
    """A shard of which a larger part is rejected counts as failed: the settings are wrong."""
    salvage: bool = False
    """Of a shard that is cut short or damaged, commit in the last attempt what can be read, marked
    incomplete."""
    retry_failed: bool = False
    """Try the shards again that an earlier run gave up."""
    allow_failed: int = 0
    """Exit with 0 although so many shards failed."""
    on_mismatch: Literal["refuse", "redo"] = "refuse"
    """What to do with an output that other settings made: refuse, or delete it and start over."""
    dry_run: bool = False
    """Print what would be done, and stop."""
    status: str = ""
    """Print the state of the run in this output directory, and stop."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    prompts: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("limit_shards", "limit_samples", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        for name in ("allow_failed", "max_reject_fraction"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"--{name} {getattr(self, name)}: must not be negative")

    @property
    def patterns(self) -> list[str]:
        """`input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    def located(self) -> AnnotateConfig:
        """The same settings with absolute paths: workers have other working directories.

        Raises:
            ConfigError: there is no output.
        """
        if not self.output:
            raise ConfigError("--output is needed: a directory or an s3:// or gs:// prefix")
        classes = self.prompts.classes
        return dataclasses.replace(
            self,
            output=storage.absolute(self.output),
            prompts=dataclasses.replace(
                self.prompts, classes=storage.absolute(classes) if classes else ""
            ),
            model=self.model.located(),
        )

    def described(self) -> dict[str, Any]:
        """All settings as JSON values, without credentials."""
        settings = dataclasses.asdict(self)
        settings["input"] = [storage.without_secrets(pattern) for pattern in self.patterns]
        settings["output"] = storage.without_secrets(self.output)
        settings["model"] = self.model.described()
        return settings

    def results(self) -> dict[str, Any]:
        """The settings that change what is written for a shard, as JSON values.

        The class file stands in it by its contents, so that it can move, as do weights in a file.
        Both are read once.
        """
        return copy.deepcopy(self._results)

    @functools.cached_property
    def _results(self) -> dict[str, Any]:
        prompts = dataclasses.asdict(self.prompts)
        if self.prompts.classes:
            content = storage.read_bytes(self.prompts.classes)
            prompts["classes"] = digests.of_bytes(content)
        return {
            "schema_version": SCHEMA_VERSION,
            "limit_shards": self.limit_shards,
            "limit_samples": self.limit_samples,
            "max_pixels": self.max_pixels,
            "max_sample_bytes": self.max_sample_bytes,
            **self.maps_settings(),
            "model": self.model.results(),
            "prompts": prompts,
            "mask": dataclasses.asdict(self.mask),
        }

    def fingerprint(self) -> str:
        """16 hex digits over `results`: equal fingerprints mean comparable outputs."""
        return fingerprint(self.results())


def fingerprint(results: dict[str, Any]) -> str:
    """16 hex digits over settings as `AnnotateConfig.results` gives them."""
    canonical = json.dumps(results, sort_keys=True, separators=(",", ":"))
    return digests.of_text(canonical)


def _age(path: str) -> tuple[int, int]:
    """Bytes of a file, and when it was written, in nanoseconds."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@functools.cache
def _digest(path: str, size: int, written: int) -> str:
    """16 hex digits over the contents of a file of any size.

    A study of the layers asks once for each of its evaluations, and weights may have many GB: a
    file of the same size and time is read once.
    """
    return digests.of_file(path)
