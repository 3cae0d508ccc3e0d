"""What to look for in an image, from the fields of its sample."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from pipeline import storage
from pipeline.config import PromptConfig, heard
from pipeline.errors import ConfigError, Reject, one_line, unwrapped
from pipeline.inputs.classes import Category, is_blank, is_text, load_classes, stable_id
from pipeline.inputs.samples import Sample
from pipeline.inputs.sounds import FIELDS, Sound, read_sound


@dataclass(frozen=True)
class Prompt:
    """One thing to look for in one image.

    Attributes:
        index: position among the prompts of the sample, from 0.
        category: class name; None for a caption.
        category_id: the class file's number, or `stable_id` of the name; None for a caption.
        texts: what to encode: the names of a class, of which the strongest counts, or a caption.
        sounds: what to encode beside the texts, likewise.
        threshold: the class's own; None for the run's.
        presence: the class's own level; None for the run's.
        embedding: a vector in the joint space, where the sample brings one instead of a text.
    """

    index: int
    category: str | None
    category_id: int | None
    texts: tuple[str, ...]
    threshold: float | None = None
    presence: float | None = None
    embedding: Float32[np.ndarray, " embed"] | None = field(default=None, compare=False)
    sounds: tuple[Sound, ...] = ()

    @property
    def wordings(self) -> tuple[str, ...]:
        """A name for each of its embeddings: the texts, and then those of the sounds."""
        return (*self.texts, *(sound.name for sound in self.sounds))


@dataclass(frozen=True)
class Absent:
    """A prompt that is taken for absent from an image, with its score."""

    prompt: Prompt
    score: float


class Prompts(list[Prompt]):
    """The prompts of a sample.

    Attributes:
        blank: names that said nothing, and are not among them.
    """

    def __init__(self, prompts: Iterable[Prompt] = (), blank: int = 0) -> None:
        super().__init__(prompts)
        self.blank = blank


PromptedSample: TypeAlias = Sample[list[Prompt]]
"""An image with its prompts, which may be none."""


class PromptReader:
    """Finds the prompts of samples in the place that a configuration names."""

    def __init__(self, config: PromptConfig, embed_width: int | None = None) -> None:
        """Load the class file, if there is one.

        Args:
            config: where the prompts are.
            embed_width: length that the vectors of samples must have.

        Raises:
            ConfigError: the class file is not as it should be, nothing says when a class of a
                vocabulary is there, or a sound that the class file names cannot be used.
            FileNotFoundError: there is no such file.
            OSError: it cannot be read, or a sound cannot be read now.
        """
        self.config, self.embed_width = config, embed_width
        self.classes = load_classes(config.classes) if config.classes else []
        unlevelled = all(category.presence is None for category in self.classes)
        if config.source == "vocabulary" and config.presence is None and unlevelled:
            raise ConfigError(
                "--prompts.source vocabulary needs --prompts.presence, the score above which a "
                "class is there, or a presence in the class file: every image would get masks of "
                "what is not in it; jobs/calibrate.py finds levels, -1 says no filter"
            )
        self._sounds = {category.id: self._heard(category) for category in self.classes}
        self.by_name = {category.name: category for category in self.classes}
        self.by_id = {category.id: category for category in self.classes}
        sources = {
            "labels": self._labels,
            "caption": self._caption,
            "cls": self._class,
            "vocabulary": self._none,
            "embeddings": self._embeddings,
            "audio": self._audio,
        }
        self._read = sources[config.source]

    def __call__(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        """The prompts of a sample; none for `vocabulary`, which asks the image.

        Raises:
            Reject: `missing_field`, `bad_prompts` or `too_many_prompts`; of a sound `bad_sound`,
                `empty_sound` or `long_sound`.
        """
        prompts = self._read(fields)
        if len(prompts) > self.config.max_per_image:
            raise Reject("too_many_prompts", f"{len(prompts)}, see --prompts.max_per_image")
        return prompts

    def named(self, index: int, name: str) -> Prompt:
        """The prompt for a class name, with what the class file says about it."""
        category = self.by_name.get(name)
        return self.of(index, category or Category(stable_id(name), name, (name,), None))

    def of(self, index: int, category: Category) -> Prompt:
        """The prompt for an entry of the class file."""
        return Prompt(
            index,
            category.name,
            category.id,
            category.prompts,
            category.threshold,
            category.presence,
            sounds=self._sounds.get(category.id, ()),
        )

    def _heard(self, category: Category) -> tuple[Sound, ...]:
        """The sounds of a class, from the files that the class file names."""
        found = []
        for name in category.sounds:
            location = heard.locate(name, self.config.classes)
            shown = (
                f"--prompts.classes {storage.public(self.config.classes)}, class {category.name}"
            )
            try:
                data = storage.read_bytes(location)
                found.append(read_sound(data, name, self.config.max_seconds).heard())
            except Reject as reject:
                raise ConfigError(f"{shown}: {reject.detail}") from reject
            except OSError as error:
                if storage.is_transient(error):
                    raise
                raise ConfigError(
                    f"{shown}: its sound {storage.public(name)} cannot be read "
                    f"({unwrapped(error)}); give a file, from the folder of the class file on"
                ) from error
        return tuple(found)

    def _labels(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        names = _names(fields, self.config.field or "labels")
        said = dict.fromkeys(name.strip() for name in names if not is_blank(name))
        prompts = (self.named(index, name) for index, name in enumerate(said))
        return Prompts(prompts, blank=sum(map(is_blank, names)))

    def _caption(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        if self.config.field:
            caption = _json_field(fields, self.config.field)
        else:
            caption = _decoded(fields, "txt")
        if is_blank(caption):
            return []
        if not is_text(caption):
            raise Reject("bad_prompts", f"{self.config.field!r} is not a text")
        return [Prompt(0, None, None, (caption.strip(),))]

    def _class(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        text = _decoded(fields, "cls").strip()
        if is_blank(text):
            return []
        if not re.fullmatch("[0-9]{1,18}", text) or int(text) not in self.by_id:
            raise Reject("bad_prompts", f".cls {text[:40]!r} is not an id of the class file")
        return [self.of(0, self.by_id[int(text)])]

    def _none(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        return []

    def _embeddings(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        names = _names(fields, self.config.field or "labels")
        vectors = _vectors(fields)
        if self.embed_width not in (None, vectors.shape[1]):
            raise Reject(
                "bad_prompts",
                f"vectors of {vectors.shape[1]}, and the model's are {self.embed_width}",
            )
        if len(vectors) != len(names):
            raise Reject("bad_prompts", f"{len(names)} names for {len(vectors)} vectors")
        pairs = [(n.strip(), v) for n, v in zip(names, vectors, strict=True) if not is_blank(n)]
        prompts = (
            replace(self.named(index, name), texts=(name,), sounds=(), embedding=vector)
            for index, (name, vector) in enumerate(pairs)
        )
        return Prompts(prompts, blank=len(names) - len(pairs))

    def _audio(self, fields: Mapping[str, bytes]) -> list[Prompt]:
        files = [name for name in fields if name.rpartition(".")[2] in FIELDS]
        if not files:
            raise Reject("missing_field", f"no sound: .{', .'.join(FIELDS)}")
        names = self._names_of(files, fields)
        pairs = [(n.strip(), f) for n, f in zip(names, files, strict=True) if not is_blank(n)]
        prompts = [
            replace(
                self.named(index, name),
                texts=(),
                sounds=(read_sound(fields[file], name, self.config.max_seconds).heard(),),
            )
            for index, (name, file) in enumerate(pairs)
        ]
        return Prompts(prompts, blank=len(names) - len(pairs))

    def _names_of(self, files: Sequence[str], fields: Mapping[str, bytes]) -> Sequence[Any]:
        """Names of sounds: those in the .json, or what stands before `.wav` in each one's field."""
        try:
            names = _names(fields, self.config.field or "labels")
        except Reject as reject:
            if self.config.field or reject.reason != "missing_field":
                raise
            return [file.rpartition(".")[0] or file for file in files]
        if len(names) != len(files):
            raise Reject("bad_prompts", f"{len(names)} names for {len(files)} sounds")
        return names


def _names(fields: Mapping[str, bytes], field: str) -> Sequence[Any]:
    """The list of names in the .json, blank ones and null among them; nothing where it is blank."""
    names = _json_field(fields, field)
    if is_blank(names):
        return []
    if not isinstance(names, list) or not all(is_text(name) or is_blank(name) for name in names):
        raise Reject("bad_prompts", f"{field!r} is not a list of names")
    return names


def _json_field(fields: Mapping[str, bytes], field: str) -> Any:
    try:
        content = json.loads(_decoded(fields, "json"))
    except (ValueError, RecursionError) as error:
        raise Reject("bad_prompts", f"the .json does not parse: {error}") from error
    if not isinstance(content, dict) or field not in content:
        raise Reject("missing_field", f"no {field!r} in the .json")
    return content[field]


def _decoded(fields: Mapping[str, bytes], extension: str) -> str:
    if extension not in fields:
        raise Reject("missing_field", f"no .{extension}")
    try:
        return fields[extension].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Reject("bad_prompts", f"the .{extension} is not UTF-8: {error}") from error


def _vectors(fields: Mapping[str, bytes]) -> Float32[np.ndarray, "prompt embed"]:
    """The rows of the sample's .npy, L2-normalised; the file may not hold Python objects."""
    if "npy" not in fields:
        raise Reject("missing_field", "no .npy")
    try:
        stored = np.asarray(np.load(io.BytesIO(fields["npy"]), allow_pickle=False))
        if stored.dtype.kind not in "fiu":
            raise TypeError(f"its values are {stored.dtype}, and no real numbers")
        with np.errstate(over="ignore"):  # what is infinite then is refused below
            vectors = np.atleast_2d(stored.astype(np.float32))
    except Exception as error:  # damaged headers lead numpy to raise almost anything
        raise Reject(
            "bad_prompts", f"the .npy does not load: {one_line(error, kind=True)}"
        ) from error
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    if vectors.ndim != 2 or not np.isfinite(norms).all() or not norms.all():
        raise Reject("bad_prompts", "the .npy is not a list of vectors with a length")
    normalised: np.ndarray = (vectors / norms).astype(np.float32)
    return normalised
