"""What is known to be in an image, out of whatever evaluations read, or lists in its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipeline import storage
from pipeline.calibration.config import CalibrateConfig
from pipeline.config import PromptConfig
from pipeline.errors import Reject, naming
from pipeline.evaluation.matching import Matcher
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.points.pairs import LabelledPairs
from pipeline.evaluation.segmentation.truth import ClassMasks, FindTruth, truth_of
from pipeline.inputs.naming import Naming
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import RawSample, read_samples


@dataclass(frozen=True)
class Known:
    """What is in an image.

    Attributes:
        names: of the classes that are there, in lower case.
        masks: where they are, if that is known.
        image: what the truth calls it; empty where the sample itself says what is there.
    """

    names: frozenset[str]
    masks: ClassMasks | None = None
    image: str = ""


@runtime_checkable
class Truth(Protocol):
    """Knows what is in some images."""

    def __call__(self, shard: str, key: str) -> Known | None:
        """What is in the image of a sample; None where nothing is known of it."""


def find_truth(config: CalibrateConfig, names: Naming) -> Truth:
    """The truth that the settings name.

    Args:
        config: the settings.
        names: how the run has read the names of its samples.

    Raises:
        ConfigError: it cannot be read, or is not what it should be.
    """
    if config.points:
        return PointTruth(read_labels(config.points, config.descriptions)[0])
    if config.input:
        return ListedTruth(_listed(config, names))
    name, location = ("coco", config.coco) if config.coco else ("masks", config.masks)
    with naming(f"--{name} {storage.public(location)}"):
        return MaskTruth(truth_of(config.coco, config.masks, config.classes))


class MaskTruth:
    """What has a mask is there."""

    def __init__(self, find: FindTruth) -> None:
        self._find = find

    def __call__(self, shard: str, key: str) -> Known | None:
        """The classes of an image with their masks; None where it has none, or an unusable one."""
        try:
            masks = self._find(RawSample(0, key, {}))
        except Reject:
            return None
        if masks is None:
            return None
        return Known(frozenset(name.lower() for name in masks.names), masks, masks.image)


class PointTruth:
    """What has a yes point is there."""

    def __init__(self, pairs: LabelledPairs) -> None:
        """Take the pairs of image and class that have one."""
        self.pairs, self._match = pairs, Matcher(pairs.images)

    def __call__(self, shard: str, key: str) -> Known | None:
        """The classes of an image; None where it has no points, or nobody knows which it is."""
        try:
            image = self._match(key)
        except Reject:
            return None
        if image is None:
            return None
        found = self.pairs.of_images([image])[image]
        return Known(frozenset(points.label.prompt for points in found), image=image)


class ListedTruth:
    """What a sample lists is there."""

    def __init__(self, listed: Mapping[tuple[str, str], frozenset[str]]) -> None:
        """Take the names in lower case, by shard and key."""
        self._listed = listed

    def __call__(self, shard: str, key: str) -> Known | None:
        """The classes that the sample lists, none included."""
        names = self._listed.get((shard, key))
        return None if names is None else Known(names)


def _listed(config: CalibrateConfig, names: Naming) -> dict[tuple[str, str], frozenset[str]]:
    patterns = [config.input] if isinstance(config.input, str) else config.input
    prompts_of = PromptReader(PromptConfig(field=config.field))
    listed: dict[tuple[str, str], frozenset[str]] = {}
    for shard in find_shards(patterns, config.input_root):
        with (
            naming(f"--input {storage.public(shard.location)}"),
            storage.open_read(shard.location) as stream,
        ):
            for raw in read_samples(stream, naming=names):
                try:
                    prompts = prompts_of(raw.fields)
                except Reject:
                    continue
                known = frozenset(prompt.category.lower() for prompt in prompts if prompt.category)
                listed.setdefault((shard.name, raw.key), known)
    return listed
