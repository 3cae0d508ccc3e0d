"""Loading the CLIP of a run."""

from __future__ import annotations

import logging
import os
import posixpath
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch

from legrad.errors import near
from pipeline import storage
from pipeline.config import DEMO_MODEL, ModelConfig
from pipeline.config.weights import CLASSIFIERS, FOLDER, HUB
from pipeline.errors import ConfigError, ModelError, one_line
from pipeline.models import converted, demo, imagebind, locks
from pipeline.models.audio.tower import AudioTower
from pipeline.models.checkpoints import check_file, explained
from pipeline.storage import digests

Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP

CACHE = Path.home() / ".cache" / "legrad-annotate" / "weights"
COPY_BUFFER = 16 << 20
ABANDONED = 3600.0
"""Seconds without a further byte after which nobody fetches a file any more."""

RANDOM_WARNING = (
    "WARNING: the model has RANDOM weights (--model.pretrained random). Its masks mean nothing; "
    "use them to try out speed, memory and formats."
)


def choose_device(device: str) -> torch.device:
    """The device that `auto` stands for, or the one named.

    Raises:
        ModelError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on its build
        cause = one_line(error)
        raise ModelError(f"--engine.device {device}: cannot be used: {cause}") from error


def load_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Clip:
    """An open_clip CLIP on `device` in evaluation mode.

    Random weights are the same in every process.

    Raises:
        ModelError: with the cause, in one line.
    """
    register()
    weights = _weights(config)
    told = _told(config)
    file = Path(weights) if weights is not None and os.path.isfile(weights) else None
    with loading(config, "open_clip", file):
        if file is not None:
            check_file(file)
        if config.name in imagebind.SIZES:
            with silent():
                model = imagebind.load_clip(config.name, file, told)
        elif weights is not None and os.path.isdir(weights):
            with silent():
                model = converted.load(config.name, Path(weights), told)
        else:
            # That a tag wants QuickGELU is said by the driver, once, and not by every worker.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "QuickGELU mismatch", UserWarning)
                model = open_clip.create_model(config.name, pretrained=weights, **told)
        # One parameter at a time: float32 weights of a large model and a copy would not fit.
        return model.eval().requires_grad_(False).to(device=device, dtype=dtype)


def register() -> None:
    """Make open_clip know the names that are not its own."""
    demo.register()
    imagebind.register()


def load_audio(config: ModelConfig) -> AudioTower:
    """The audio tower of a run's model, in float32 and evaluation mode on the CPU.

    Raises:
        ModelError: with the cause, in one line.
        ConfigError: the model has none.
    """
    if not config.hears:
        raise ConfigError(
            f"--model.name {config.name}: it has no audio tower; sounds are for "
            f"{', '.join(imagebind.SIZES)}"
        )
    if config.name == DEMO_MODEL:
        return demo.create_audio()
    register()
    weights = _weights(config)
    file = None if weights is None else Path(weights)
    with loading(config, "open_clip", file):
        return imagebind.load_audio(config.name, file)


def _told(config: ModelConfig) -> dict[str, Any]:
    """What open_clip has to be told of the weights, beside what it does by itself."""
    changed = config.weight_settings().changed
    told = {"quick_gelu": changed.pop("quick_gelu")} if "quick_gelu" in changed else {}
    if changed:
        told["force_preprocess_cfg"] = changed
    if config.in_place:  # open_clip would otherwise go on without weights
        told["load_weights"] = told["require_pretrained"] = config.pretrained != "random"
    return told


def near_models(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown model: names of one family are much alike."""
    return near(name, known, most=3, cutoff=0.4)


def _does_not_load(config: ModelConfig, error: Exception, file: Path | None) -> ModelError:
    """What a library's error about a model means, in one line."""
    cause = explained(error, file)
    if isinstance(error, EOFError):
        cause = "the file is empty or cut short"
    elif isinstance(error, AttributeError | KeyError):  # it looked for a tensor in vain
        cause += " (does the file have the weights of another model, or none?)"
    weights = "" if config.in_place else f" --model.pretrained {storage.public(config.pretrained)}"
    return ModelError(f"--model.name {config.name}{weights}: does not load: {cause}")


def clip_skeleton(name: str) -> Clip:
    """A CLIP without weights, to look at: its parameters take no memory.

    Raises:
        ModelError: open_clip has no such model.
    """
    register()
    _check_name(name)
    with silent(), torch.device("meta"):
        return open_clip.create_model(name, device="meta", load_weights=False)


def _check_name(name: str) -> None:
    if name.startswith((HUB, FOLDER)):
        return
    known = open_clip.list_models()
    if name not in known:
        hint = near_models(name, known)
        if os.path.isdir(name):
            hint = f"; for a folder of open_clip, give {FOLDER}{name}"
        raise ModelError(f"--model.name {name}: open_clip has no such model{hint}")


def _weights(config: ModelConfig) -> str | None:
    """What open_clip calls `pretrained`: a tag, a file, or None for random weights."""
    if config.name.startswith(CLASSIFIERS):
        raise ModelError(
            f"--model.name {config.name}: a classifier has no text tower, so that it explains its "
            "own classes only: evaluate.py perturbation and layers"
        )
    _check_name(config.name)
    if config.pretrained == "random" or config.in_place:
        return None
    if config.pretrained == "demo":
        return str(demo.WEIGHTS)
    tags = open_clip.list_pretrained_tags_by_model(config.name)
    if storage.is_uri(config.pretrained):
        return str(downloaded(config.pretrained))
    if config.name in imagebind.SIZES and not os.path.isfile(config.pretrained):
        raise ModelError(
            f"--model.pretrained {config.pretrained}: no file, and {config.name} has no tags; give "
            "the checkpoint of its authors (imagebind_huge.pth), or random"
        )
    if config.pretrained not in tags and not os.path.exists(config.pretrained):
        raise ModelError(
            f"--model.pretrained {config.pretrained}: neither a file nor a tag of {config.name} "
            f"({', '.join(tags) or 'it has none'})"
        )
    return config.pretrained


def downloaded(location: str) -> Path:
    """A local copy of remote weights, fetched once for all processes of this machine.

    Its name says of which version it is (`storage.version` of the original): other weights in the
    same place are fetched anew, and take its place. (From a web server that tells neither date nor
    ETag, only if their size differs.) Machines that share the folder may fetch at the same time.

    Raises:
        ModelError: they cannot be read.
    """
    place = digests.of_text(location)
    with locks.alone(f"weights-{place}", f"fetching {storage.public(location)}"):
        try:
            # Asked for before the download: should they change meanwhile, they are fetched again.
            version = digests.of_text(storage.version(location))
            name = posixpath.basename(storage.normalise(location))
            path = CACHE / f"{place}-{version}-{name}"
            if not path.exists():
                _fetch(location, path)
                _clear(place, path)
        except OSError as error:
            shown = storage.public(location)
            raise ModelError(f"--model.pretrained {shown}: {one_line(error)}") from error
    return path


def _clear(place: str, path: Path) -> None:
    """Delete other versions of the same weights, and what is left of downloads that were killed."""
    for other in set(CACHE.glob(f"{place}-*")) - {path}:
        other.unlink(missing_ok=True)
    for partial in CACHE.glob(f".{place}-*"):
        with suppress(FileNotFoundError):  # another machine has the same folder
            if time.time() - partial.stat().st_mtime > ABANDONED:
                partial.unlink()


def _fetch(location: str, path: Path) -> None:
    """Copy a remote file to `path`, where nothing is until all of it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    expected = sum(found.size for found in storage.find(location).values())
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as target, storage.open_read(location) as source:
            shutil.copyfileobj(source, target, COPY_BUFFER)
            size = target.tell()
        if expected and size != expected:
            raise storage.Unreachable(f"came in short ({size} of {expected} bytes), try again")
        if not path.exists():  # a machine that was faster may be reading it
            os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


@contextmanager
def loading(config: ModelConfig, library: str, file: Path | None = None) -> Iterator[None]:
    """Have a library make a model: alone on this machine, with the same random numbers each time.

    Raises:
        ModelError: whatever was raised meanwhile, in one line.
    """
    with (
        locks.alone(library, f"loading a model with {library}"),  # or each of them downloads it
        torch.random.fork_rng(devices=[]),
        said_if_random(config.pretrained == "random"),
    ):
        torch.manual_seed(0)
        try:
            yield
        except Exception as error:  # the libraries, torch and the hub raise whatever they like
            raise _does_not_load(config, error, file) from error


@contextmanager
def said_if_random(random: bool) -> Iterator[None]:
    """Replace a library's warning about random weights by one that nobody overlooks."""
    if not random:
        yield
        return
    print(RANDOM_WARNING, flush=True)
    with silent():
        yield


@contextmanager
def silent() -> Iterator[None]:
    """No warnings of libraries in the log."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
