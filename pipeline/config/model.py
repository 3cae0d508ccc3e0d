"""The model of a run: its name, its weights, and what belongs to them."""

from __future__ import annotations

import dataclasses
import functools
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import storage
from pipeline.config.beside import check
from pipeline.config.identity import identity_of, since
from pipeline.config.weights import CLASSIFIERS, FOLDER, HUB, IMAGEBIND, WeightSettings, settle
from pipeline.errors import ConfigError, naming
from pipeline.storage import digests

DEMO_MODEL = "legrad-demo"
"""The bundled CLIP; see `pipeline.models.demo`."""
READ = (".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model")
"""How the names of those files end that open_clip may read in a folder of a model."""
OF_WEIGHTS = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")


@dataclass(frozen=True)
class ModelConfig:
    """The model that is explained."""

    name: str = DEMO_MODEL
    """A CLIP as open_clip lists it (or the bundled legrad-demo), imagebind_huge, hf-hub:ORG/REPO or
    local-dir:FOLDER with open_clip's files; for evaluate.py perturbation and layers also a
    classifier, timm/NAME with a name that timm lists."""
    pretrained: str = "demo"
    """Weights: an open_clip tag, timm (those of the classifier's name), a local file, an s3://,
    gs:// or http(s):// URI, a folder with a CLIP or SigLIP of transformers, demo, or random (to try
    out speed and memory); left out for hf-hub: and local-dir:."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the vision and text towers; maps and scores come back in float32."""
    image_size: int | None = None
    """Side of the square that images are squashed to; the model's own when not given."""
    mean: list[float] | None = since(None, before=None)
    """Of pixels in 0..1, red, green, blue: what the weights were trained with, if neither a tag nor
    a file beside them says it."""
    std: list[float] | None = since(None, before=None)
    """Their deviation, likewise."""
    interpolation: Literal["bicubic", "bilinear"] | None = since(None, before=None)
    """How images are resized, likewise."""
    resize_mode: Literal["shortest", "longest", "squash"] | None = since(None, before=None)
    """How images become squares where accuracy is measured, likewise; maps are of squashed ones."""
    quick_gelu: bool | None = since(None, before=None)
    """Whether the weights were trained with QuickGELU, likewise."""

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"--model.image_size {self.image_size}: must be at least 1")
        if self.in_place and self.pretrained not in ("demo", "random"):
            raise ConfigError(
                f"--model.pretrained {storage.public(self.pretrained)}: the weights of {self.name} "
                "are those that lie there; leave it out"
            )
        if self.pretrained == "demo" and self.name != DEMO_MODEL and not self.in_place:
            raise ConfigError(
                f"--model.name {self.name} --model.pretrained demo: these weights belong to "
                f"{DEMO_MODEL} alone; name an open_clip tag, timm, a file or random"
            )
        check(self._given(), lambda key: f"--model.{key}")
        if self.name.startswith(CLASSIFIERS):
            for key in ("resize_mode", "quick_gelu"):
                if getattr(self, key) is not None:
                    raise ConfigError(f"--model.{key}: {self.name} is a classifier; drop it")

    @property
    def in_place(self) -> bool:
        """Whether the name says where the weights are, too."""
        return self.name.startswith((HUB, FOLDER))

    @property
    def hears(self) -> bool:
        """Whether the model has an audio tower."""
        is_demo = self.name == DEMO_MODEL and self.pretrained == "demo"
        return is_demo or self.name.startswith(IMAGEBIND)

    @property
    def folder(self) -> Path | None:
        """The folder of the model, where its name or its weights are one."""
        if self.name.startswith(FOLDER):
            return Path(self.name.removeprefix(FOLDER))
        return Path(self.pretrained) if os.path.isdir(self.pretrained) else None

    def absolute(self) -> ModelConfig:
        """The same settings with absolute paths, where model or weights are local files."""
        changed = self
        if self.name.startswith(FOLDER):
            changed = dataclasses.replace(
                self, name=f"{FOLDER}{os.path.abspath(self.folder or '')}"
            )
        if not os.path.exists(self.pretrained) or self.pretrained in ("demo", "random"):
            return changed
        return dataclasses.replace(changed, pretrained=os.path.abspath(self.pretrained))

    def weight_settings(self) -> WeightSettings:
        """What belongs to the weights: mean, deviation, resizing, activation.

        Raises:
            ConfigError: a file beside the weights makes no sense or cannot be read.
        """
        with naming(f"--model.pretrained {storage.public(self.pretrained)}"):
            return settle(self.name, self.pretrained, self._given())

    def identity(self) -> dict[str, Any]:
        """The settings as JSON values, with weights in a file as what they are, wherever it lies.

        A local file stands in it by its contents, and so does a folder; a remote file, which nobody
        wants to read for this alone, by its name and what `storage.version` says of it. What
        belongs to the weights stands in it by what is done, whoever says so, and only where that
        is not what name and tag alone come to.

        Raises:
            ConfigError: the file cannot be read, or asked about.
        """
        identity = {k: v for k, v in identity_of(self).items() if k not in OF_WEIGHTS}
        flag = f"--model.pretrained {storage.public(self.pretrained)}"
        with naming(f"--model.name {self.name}" if self.in_place else flag):
            if self.name.startswith(FOLDER):
                identity["name"] = f"{FOLDER}sha256 {_digest_of_folder(self.folder)}"
            if storage.is_uri(self.pretrained):
                name = posixpath.basename(storage.normalise(self.pretrained))
                identity["pretrained"] = f"{name}, {storage.version(self.pretrained)}"
            elif os.path.isfile(self.pretrained):
                digest = _digest(self.pretrained, *_age(self.pretrained))
                identity["pretrained"] = f"sha256 {digest}"
            elif os.path.isdir(self.pretrained) and not self.in_place:
                identity["pretrained"] = f"sha256 {_digest_of_folder(Path(self.pretrained))}"
        return identity | self.weight_settings().changed

    def _given(self) -> dict[str, Any]:
        """What somebody wrote down of what belongs to the weights."""
        values = {key: getattr(self, key) for key in OF_WEIGHTS}
        given = {key: value for key, value in values.items() if value is not None}
        for key in ("mean", "std"):
            if key in given:
                given[key] = [float(one) for one in given[key]]
        return given


def _digest_of_folder(folder: Path | None) -> str:
    """Over those files of a folder that may be read, by name and contents."""
    files = sorted(path for path in (folder or Path()).iterdir() if path.suffix in READ)
    found = [f"{file.name} {_digest(str(file), *_age(str(file)))}" for file in files]
    return digests.of_text("\n".join(found))


def _age(path: str) -> tuple[int, int]:
    """Bytes of a file, and when it was written, in nanoseconds."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@functools.cache
def _digest(path: str, size: int, written: int) -> str:
    """The digest of a file's contents.

    A study of the layers asks once for each of its evaluations, and weights may have many GB: a
    file of the same size and time is read once.
    """
    return digests.of_file(path)
