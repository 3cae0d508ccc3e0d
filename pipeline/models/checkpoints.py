"""Files that are no weights, or not as they are wanted: what each of them is, and what to do."""

from __future__ import annotations

import pickle
import re
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open

from pipeline.errors import one_line

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PART = re.compile(r"-(\d{5})-of-(\d{5})\.\w+$")
REFUSED = re.compile(r"GLOBAL ([\w.]+)")
GZIP = b"\x1f\x8b"
POINTER = b"version https://git-lfs"
TOWER = re.compile(r"(?:visual|transformer|token_embedding|logit_scale|text|blocks|patch_embed)\b")
"""How the names of tensors begin that open_clip and timm look for."""


class NoWeights(Exception):
    """A file that cannot be loaded; the message says what it is and what to do."""


def check_file(path: Path) -> None:
    """See that a file can be weights at all. Nothing in it is unpickled or run.

    Raises:
        NoWeights: it is a web page, compressed, one part of several, an archive or a program.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(GZIP):
        raise NoWeights("the file is compressed (gzip): unpack it first")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise NoWeights("the file is a web page, not weights: fetch it from its download link")
    if head.startswith(POINTER):
        raise NoWeights("the file is a pointer of Git LFS, not weights: use git lfs pull")
    if part := PART.search(path.name):
        raise NoWeights(
            f"the file is part {int(part[1])} of {int(part[2])}: give one file with all of them, "
            "or the folder if it is one of transformers"
        )
    if path.name.endswith(".index.json"):
        raise NoWeights("the file is a list of parts: give its folder if it is one of transformers")
    if zipfile.is_zipfile(path):
        _check_members(path)
    elif path.suffix not in (".safetensors", ".npz", ".npy") and tarfile.is_tarfile(path):
        raise NoWeights("the file is a tar archive: unpack it, and give the weights in it")


def _check_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise NoWeights(
            "the file is a TorchScript archive, a program, which is not run here: where you trust "
            f"it, save its tensors with torch.save(torch.jit.load({_quoted(path)}, "
            "map_location='cpu').state_dict(), 'weights.pt')"
        )
    if path.suffix != ".npz" and not any(name.endswith("data.pkl") for name in names):
        raise NoWeights("the file is a zip archive without weights of torch: unpack it first")


def explained(error: Exception, path: Path | None) -> str:
    """Why weights do not load, in one line, without a library's advice and colours.

    Args:
        error: what a library raised.
        path: the file that was being loaded, if it was one.
    """
    if isinstance(error, NoWeights):
        return str(error)
    raised: BaseException | None = error  # timm puts a text of its own around what torch raises
    while raised is not None and not isinstance(raised, pickle.UnpicklingError):
        raised = raised.__cause__ or raised.__context__
    if raised is not None:
        return _refused(raised, path)
    cause = one_line(error, kind=True)
    names = _names(path) if path is not None else []
    if any(name.startswith("vision_model.") for name in names):
        cause = (
            "its tensors have the names of transformers: give the folder that it is in, with its "
            "config.json"
        )
    elif prefix := _prefix(names):
        cause = (
            f"the names of its tensors begin with {prefix}, as a training loop of Lightning or the "
            "like leaves them: take the tensors of the model alone, and that beginning off, with "
            "torch.save({k.removeprefix('%s'): v for k, v in state_dict.items() if "
            "k.startswith('%s')}, 'weights.pt')" % (prefix, prefix)
        )
    return COLOURS.sub("", cause)


def _refused(error: BaseException, path: Path | None) -> str:
    """Torch's weights-only reader has met something else than tensors, or no pickle at all."""
    if found := REFUSED.search(COLOURS.sub("", str(error))):
        return (
            f"the file holds Python objects ({found[1]}) beside its tensors, and nothing is "
            "unpickled here: where you trust it, save the tensors alone with torch.save(torch.load("
            f"{_quoted(path)}, map_location='cpu', weights_only=False)['state_dict'], 'weights.pt')"
        )
    return "the file is neither safetensors nor a checkpoint of torch, or it is damaged"


def _quoted(path: Path | None) -> str:
    return repr(path.name if path is not None else "FILE")


def _names(path: Path) -> list[str]:
    """The names of the tensors in a file; none where they cannot be told."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return list(file.keys())
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # it is asked after another error, which is the one to report
        return []
    tensors = content.get("state_dict", content) if isinstance(content, dict) else {}
    return [name for name in tensors if isinstance(name, str)] if isinstance(tensors, dict) else []


def _prefix(names: Iterable[str]) -> str:
    """What stands before the names that are looked for, if it is the same before all of them."""
    found = {match.group(1) for name in names if (match := _BEFORE.match(name))}
    return found.pop() if len(found) == 1 else ""


_BEFORE = re.compile(rf"((?:(?!{TOWER.pattern})\w+\.)+?)(?:{TOWER.pattern})\.")
