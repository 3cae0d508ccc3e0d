"""The images themselves, read again from the shards that were annotated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pipeline import storage
from pipeline.errors import ConfigError, ShardError
from pipeline.export.config import ExportConfig
from pipeline.export.instances import Selected
from pipeline.export.pictures import Picture
from pipeline.export.run import Format
from pipeline.export.state import State
from pipeline.inputs.naming import Naming
from pipeline.inputs.samples import image_bytes
from pipeline.inputs.shards import Shard, find_shards
from pipeline.inputs.tars import read_samples
from pipeline.outputs.predictions import Predictions


@dataclass(frozen=True)
class ImagesConfig(ExportConfig):
    """An export with images or without."""

    images: str | list[str] = ""
    """The shards that were annotated, as --input of annotate.py had them."""
    input_root: str = ""
    """As --input_root of annotate.py."""

    NO_RESULT: ClassVar[tuple[str, ...]] = (*ExportConfig.NO_RESULT, "images", "input_root")

    @property
    def patterns(self) -> list[str]:
        """The shards that --images names."""
        return [self.images] if isinstance(self.images, str) else self.images

    def identity(self) -> dict[str, Any]:
        """With whether there are images, wherever they lie."""
        return super().identity() | {"with_images": bool(self.images)}


Config = TypeVar("Config", bound=ImagesConfig)


class ImageFormat(Format[Config]):
    """A format that can have the images in it.

    Attributes:
        shards: those of the run by name; empty without --images.
    """

    def __init__(
        self, config: Config, predictions: Predictions, categories: Sequence[str], state: State
    ) -> None:
        """Find the shards.

        Raises:
            ConfigError: one of the run is not among those of --images.
            FileNotFoundError: see `find_shards`.
        """
        super().__init__(config, predictions, categories, state)
        self.shards: dict[str, Shard] = {}
        if not config.images:
            return
        found = find_shards(config.patterns, config.input_root, "--images")
        self.shards = {shard.name: shard for shard in found}
        commits = predictions.commits
        absent = [commit for commit in commits if commit.shard not in self.shards]
        if absent:
            raise ConfigError(
                f"--images: {len(absent)} of {len(commits)} shards of the run are not among them, "
                f"such as {absent[0].uri}; give them as --input and --input_root were given"
            )

    def read_images(self, selected: Selected) -> Iterator[tuple[Picture, str, bytes]]:
        """Every image of a shard; see `read_images`."""
        naming = Naming.of(self.predictions.identity)
        return read_images(self.shards[selected.commit.shard], selected, naming)


def read_images(
    shard: Shard, selected: Selected, naming: Naming
) -> Iterator[tuple[Picture, str, bytes]]:
    """Every image of a shard, with its extension and the bytes that are stored.

    Raises:
        ConfigError: the shard is not the one that was annotated.
        ShardError: it cannot be read.
    """
    left = {picture.sample: picture for picture in selected.pictures}
    with storage.open_read(shard.location) as stream:
        try:
            for raw in read_samples(stream, naming=naming):
                picture = left.pop(raw.index, None)
                if picture is not None:
                    extension = naming.image_field(raw.fields)
                    if extension is None or raw.key != picture.key:
                        raise ConfigError(f"{_other(shard)}: sample {raw.index} is {raw.key}")
                    yield picture, extension, image_bytes(raw)
        except ShardError:
            if left or not selected.commit.incomplete:
                raise
    if left:
        raise ConfigError(f"{_other(shard)}: it has no sample {min(left)}")


def _other(shard: Shard) -> str:
    return f"--images {storage.public(shard.location)}: is not the shard that was annotated"
