"""WebDataset shards with images and masks side by side."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.export.coco import to_json
from pipeline.export.images import ImageFormat, ImagesConfig
from pipeline.export.instances import Instance, Selected
from pipeline.export.pictures import Picture
from pipeline.outputs.records import Commit


@dataclass(frozen=True)
class WebDatasetConfig(ImagesConfig):
    """WebDataset shards: every image as it was, and its objects in KEY.json."""

    FORMAT: ClassVar[str] = "webdataset"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images:
            raise ConfigError("--images is needed: the shards that were annotated")
        if self.file_name:
            raise ConfigError("--file_name: has no effect here, where samples keep their keys")


class WebDataset(ImageFormat[WebDatasetConfig]):
    """`<shard>.tar`, in a folder for each part of the data, and `shards.json`."""

    def last_files(self) -> Sequence[str]:
        """The list of the tars and of the classes."""
        return ["shards.json"]

    def write_shard(self, selected: Selected) -> Counter[str]:
        """A tar for each part of the data; the members of a sample lie one behind the other."""
        with ExitStack() as stack:
            tars = {}
            for part in self.parts:
                path = self.state.path(_tar(part, selected.commit))
                file = stack.enter_context(storage.create(path))
                # A stream, for the file need not be one that can be read back.
                tars[part] = stack.enter_context(tarfile.open(fileobj=file, mode="w|"))
            for picture, extension, data in self.read_images(selected):
                found = selected.instances.get(picture.sample, ())
                record = to_json(_record(picture, found)).encode()
                _add(tars[picture.part], f"{picture.key}.{extension}", data)
                _add(tars[picture.part], f"{picture.key}.json", record)
        return Counter()

    def finish(self, commits: Sequence[Commit]) -> None:
        """Which tars there are, and what the categories are called."""
        shards = {part or "all": [_tar(part, commit) for commit in commits] for part in self.parts}
        content = {"categories": self.categories, "shards": shards}
        storage.write_bytes(self.state.path("shards.json"), to_json(content).encode())


def _tar(part: str, commit: Commit) -> str:
    return posixpath.join(part, f"{commit.shard}.tar")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _record(picture: Picture, instances: Sequence[Instance]) -> Mapping[str, Any]:
    return {
        "image_id": picture.id,
        "file_name": picture.file_name,
        "height": picture.height,
        "width": picture.width,
        "objects": [
            {
                "category_id": instance.category,
                "category": instance.name,
                "score": instance.score,
                **instance.likely,
                "area": instance.area,
                "bbox": instance.bbox,
                "segmentation": instance.segmentation,
            }
            for instance in instances
        ],
    }
