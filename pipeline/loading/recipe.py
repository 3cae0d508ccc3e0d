"""Masks for those who have a WebDataset pipeline of their own.

wds.WebDataset(urls).compose(with_masks("out")).decode("pil").to_tuple("jpg", "target")
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torchvision import tv_tensors

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.inputs.naming import Naming
from pipeline.inputs.shards import Shard
from pipeline.loading.targets import ShardTargets, TargetReader, decode_masks, dense_labels
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.outputs.selection import SelectionConfig

SHARDS_KEPT = 8
"""Shards whose targets are in memory: samples of so many may come mixed."""


def with_masks(
    predictions: str,
    *,
    input_root: str = "",
    select: SelectionConfig | None = None,
    decode: bool = True,
    keep_empty: bool = True,
) -> WithMasks:
    """A stage for `compose` of a WebDataset: samples get a `target`, as `MaskDataset` gives them.

    It finds masks by `__url__` and `__key__`, wherever it stands in the pipeline. Samples that the
    run has rejected, and those whose key comes twice in a shard, are left out.

    Args:
        predictions: the run's output.
        input_root: as `--input_root` of the run.
        select: which masks are taken.
        decode: give pixels of masks, not run lengths.
        keep_empty: give images without a mask, too.

    Raises:
        ConfigError: a setting that cannot work, or there is no such run.
    """
    run = Predictions(predictions, "predictions")
    if Naming.of(run.identity).key_end != "first_dot":
        raise ConfigError(
            f"predictions {storage.public(predictions)}: was made with --key_end last_dot, and "
            "WebDataset ends keys at the first dot; use MaskDataset"
        )
    select = select or SelectionConfig()
    labels = dense_labels(run, select, None)
    return WithMasks(TargetReader(run, labels, select, keep_empty=keep_empty), input_root, decode)


@dataclass
class WithMasks:
    """The stage; it can be pickled.

    Attributes:
        targets: reads what the run has written of a shard.
        input_root: prefix taken off URLs before shards are named.
        decode: give pixels of masks, not run lengths.
    """

    targets: TargetReader
    input_root: str
    decode: bool
    _kept: OrderedDict[str, _ByKey] = field(default_factory=OrderedDict, init=False, repr=False)

    @property
    def classes(self) -> dict[int, str]:
        """Label → name; 0 is the background."""
        return {0: "background"} | {number: name for name, number in self.targets.labels.items()}

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The samples that have a target, with it."""
        for sample in samples:
            shard = self._shard(sample["__url__"])
            index = shard.positions.get(sample["__key__"])
            if index is None:
                continue
            image = shard.targets.images[index]
            target = shard.targets.instances(index) | {"image_id": image.image_id}
            if self.decode:
                masks = decode_masks(target.pop("segmentation"), image.height, image.width)
                target["masks"] = tv_tensors.Mask(masks)
            yield sample | {"target": target}

    def _shard(self, url: str) -> _ByKey:
        if url not in self._kept:
            self._kept[url] = _ByKey.of(self.targets(self._commit(url)))
            if len(self._kept) > SHARDS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(url)
        return self._kept[url]

    def _commit(self, url: str) -> Commit:
        uri = storage.normalise(url)
        root = storage.normalise(self.input_root).rstrip("/") + "/" if self.input_root else ""
        name = Shard(url, uri.removeprefix(root), 0).name
        for commit in self.targets.predictions.commits:
            if commit.shard == name:
                return commit
        raise ConfigError(
            f"{storage.public(url)}: {self.targets.predictions} has no commit of {name}; finish "
            "the run, or give the input_root that it had"
        )


@dataclass(frozen=True)
class _ByKey:
    """Targets of a shard, and where its keys are; of those that come twice it is not known."""

    targets: ShardTargets
    positions: dict[str, int]

    @classmethod
    def of(cls, targets: ShardTargets) -> _ByKey:
        found = {image.key: index for index, image in targets.images.items()}
        return cls(targets, {key: n for key, n in found.items() if key not in targets.repeated})
