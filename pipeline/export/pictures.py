"""The images of an export, and what they are called."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError
from pipeline.export.config import ExportConfig
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.storage import digests

COLUMNS = ("sample_index", "key", "file_name", "image_id", "height", "width", "status")
"""Of `images/`."""


@dataclass(frozen=True)
class Picture:
    """An image that could be read, with masks or without.

    Attributes:
        sample: its position in the shard.
        key: of its sample.
        id: unique in the export.
        file_name: a relative path with forward slashes, unique in the export.
        height: stored pixels.
        width: stored pixels.
        part: of the data that it belongs to; empty without --split.
    """

    sample: int
    key: str
    id: int
    file_name: str
    height: int
    width: int
    part: str

    @property
    def stem(self) -> str:
        """`file_name` without its extension."""
        return posixpath.splitext(self.file_name)[0]


def read_pictures(
    predictions: Predictions, commit: Commit, config: ExportConfig
) -> Iterator[Picture]:
    """The images of a shard, without the rejected ones.

    Raises:
        ConfigError: one has no name, or none that can be a path inside a folder.
    """
    table = predictions.read_images(commit, COLUMNS)
    columns = (table[name].to_pylist() for name in COLUMNS)
    for sample, key, file_name, number, height, width, status in zip(*columns, strict=True):
        if status != "rejected":
            name = config.named(file_name, key, commit.shard, number)
            if name is None:
                raise ConfigError(
                    f"{predictions}: no file name is known of sample {key} of {commit.shard}, "
                    "whose table is of an earlier release; give a pattern, such as "
                    "--file_name '{image_id}.jpg'"
                )
            path = _inside(name, commit.shard, key)
            yield Picture(sample, key, number, path, height, width, config.part_of(key))


def _inside(name: str, shard: str, key: str) -> str:
    path = posixpath.normpath(name) if name else ""
    if path in ("", ".", "..") or path.startswith(("/", "../")) or "\\" in path or "\0" in path:
        raise ConfigError(
            f"sample {key} of {shard}: {name!r} is no path below the folder of the images; give "
            "another pattern, such as --file_name '{image_id}.jpg'"
        )
    return path


def check_pictures(predictions: Predictions, config: ExportConfig) -> int:
    """See that all images can be told apart, before anything is written.

    Memory: 16 bytes per image.

    Returns:
        How many there are.

    Raises:
        ConfigError: see `read_pictures`; or two images have the same number or name.
    """
    numbers: list[np.ndarray] = []
    names: list[np.ndarray] = []
    for commit in predictions.commits:
        pictures = list(read_pictures(predictions, commit, config))
        numbers.append(np.array([picture.id for picture in pictures], np.uint64))
        hashes = [_hash(picture, config.BY_STEM) for picture in pictures]
        names.append(np.array(hashes, np.uint64))
    for what, found in (("image_id", numbers), ("name", names)):
        values, counts = np.unique(np.concatenate(found), return_counts=True)
        repeated = values[counts > 1]
        if len(repeated):
            raise ConfigError(_repeated(predictions, config, what, int(repeated[0])))
    return sum(map(len, numbers))


def _hash(picture: Picture, by_stem: bool) -> int:
    name = picture.stem if by_stem else picture.file_name
    return int(digests.of_text(name), base=16)


def _repeated(predictions: Predictions, config: ExportConfig, what: str, value: int) -> str:
    """What to say of the first two images that have something in common."""
    found: list[tuple[str, Picture]] = []
    for commit in predictions.commits:
        for picture in read_pictures(predictions, commit, config):
            same = picture.id if what == "image_id" else _hash(picture, config.BY_STEM)
            if same == value:
                found.append((commit.shard, picture))
    (shard, one), (other_shard, other) = found[:2]
    both = f"sample {one.key} of {shard} and sample {other.key} of {other_shard}"
    if what == "image_id":
        return f"{predictions}: {both} have the same image_id {value}: annotate one shard only"
    names = f"{one.file_name}{'' if one.file_name == other.file_name else f', {other.file_name}'}"
    return (
        f"{predictions}: {both} would have the same name ({names}); give a pattern that tells them "
        "apart, such as --file_name '{shard}/{file_name}'"
    )
