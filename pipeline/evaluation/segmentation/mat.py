"""ImageNet-Segmentation, `gtsegs_ijcv.mat` (MATLAB v7.3): images and ground truth in one file.

A stretch of its entries is a shard, with `FILE#FIRST:END` for a location.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import UInt8

from pipeline import storage
from pipeline.errors import ConfigError, Reject, naming
from pipeline.evaluation.segmentation.truth import ClassMasks
from pipeline.inputs.classes import is_blank
from pipeline.inputs.reader import Fit
from pipeline.inputs.samples import Rejected, Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import StageClock

ENTRIES = 64
"""In a shard."""


def mat_shards(path: str) -> list[Shard]:
    """Stretches of the file, as shards.

    Raises:
        ConfigError: the file is not ImageNet-Segmentation.
        FileNotFoundError: there is none.
    """
    size = Path(path).stat().st_size
    try:
        with h5py.File(path, "r") as file:
            count = len(file["value"]["img"])
            missing = {"gt", "target"} - set(file["value"])
    except (OSError, KeyError, TypeError) as error:
        raise ConfigError(f"--mat {path}: not a v7.3 .mat with /value/img: {error}") from error
    if missing:
        raise ConfigError(f"--mat {path}: no /value/{', /value/'.join(sorted(missing))}")
    uri = storage.normalise(path)
    return [
        Shard(f"{path}#{start}:{min(start + ENTRIES, count)}", f"{uri}-{start:06d}", size)
        for start in range(0, count, ENTRIES)
    ]


def read_wnids(location: str) -> dict[str, str]:
    """The first name of every class, by its WordNet id.

    Args:
        location: of a text file, `n01440764 tench, Tinca tinca` per line.

    Raises:
        ConfigError: the file cannot be read, is no text, or a class has no name.
    """
    shown = f"--wnids {storage.public(location)}"
    with naming(shown):
        data = storage.read_bytes(location)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is no text in UTF-8: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if is_blank(line):
            continue
        wnid, _, names = line.strip().partition(" ")
        name = names.partition(",")[0].strip()
        if is_blank(name):
            raise ConfigError(
                f"{shown}: line {number}: {line[:80]!r}; give lines such as "
                "n01440764 tench, Tinca tinca"
            )
        found[wnid] = name
    if not found:
        raise ConfigError(f"{shown}: is empty")
    return found


class MatReader:
    """Reads the shards of `mat_shards`, as `ShardReader` reads those that are tars."""

    def __init__(self, wnids: str, fit: Fit, limit_samples: int | None = None) -> None:
        """Read the names of the classes.

        Args:
            wnids: see `read_wnids`.
            fit: brings an image to size.
            limit_samples: only the first ones of every shard are read.
        """
        self._fit, self._limit = fit, limit_samples
        self._names = read_wnids(wnids)

    def __call__(
        self, shard: Shard, clock: StageClock | None = None
    ) -> Iterator[Sample[ClassMasks] | Rejected]:
        """Every entry of the shard in order, its position for a key, or why it cannot be used.

        Args:
            shard: one of `mat_shards`.
            clock: is told how long reading and decoding take, which are one here.

        Raises:
            OSError: the file cannot be read.
        """
        path, _, stretch = shard.location.rpartition("#")
        told = clock or StageClock()
        first, end = map(int, stretch.split(":"))
        if self._limit is not None:
            end = min(end, first + self._limit)
        with h5py.File(path, "r") as file:
            for position in range(first, end):
                key = f"{position:06d}"
                try:
                    with told.measure("decode"):
                        pixels, truth = self._entry(file, position)
                except Reject as reject:
                    yield Rejected(position, key, reject.reason, reject.detail)
                    continue
                height, width = pixels.shape[1:]
                yield Sample(position, key, height, width, self._fit(pixels), truth)

    def _entry(
        self, file: Any, position: int
    ) -> tuple[UInt8[torch.Tensor, "3 height width"], ClassMasks]:
        """MATLAB is column-major, so that every array comes transposed."""
        value = file["value"]
        wnid = "".join(chr(int(c)) for c in np.ravel(file[value["target"][position, 0]]))
        if wnid not in self._names:
            raise Reject("unknown_class", f"{wnid} has no name in --wnids")
        image = np.array(file[value["img"][position, 0]]).T
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=-1)
        truth = np.array(file[file[value["gt"][position, 0]][0, 0]]).T
        if truth.shape != image.shape[:2]:
            raise Reject("bad_mask", f"a mask of {truth.shape} for an image of {image.shape}")
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        foreground = np.ascontiguousarray(truth) == 1
        return pixels, ClassMasks([self._names[wnid]], foreground[None], truth < 0)
