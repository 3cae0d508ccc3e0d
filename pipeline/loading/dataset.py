"""Images joined with their masks as they stream: a dataset for torch's `DataLoader`."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.context import ForkProcess
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline import storage
from pipeline.errors import ConfigError, Reject
from pipeline.inputs.images import decode as decode_image
from pipeline.inputs.naming import Naming
from pipeline.inputs.samples import image_bytes
from pipeline.inputs.tars import RawSample
from pipeline.loading.order import Part, shards_of_part, shuffled
from pipeline.loading.pairs import pair_up
from pipeline.loading.progress import Progress
from pipeline.loading.stream import Stream
from pipeline.loading.targets import (
    ShardTargets,
    Target,
    TargetReader,
    decode_masks,
    dense_labels,
)
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.selection import SelectionConfig
from pipeline.outputs.semantic import SemanticConfig
from pipeline.storage import digests

LoadedSample = tuple[tv_tensors.Image, Target]
NO_LIMIT = 1 << 62
"""Pixels of an image: the run has seen it, and had a limit of its own."""


class MaskDataset(IterableDataset[LoadedSample]):
    """Every image of some shards that a run has annotated, with its masks: (image, target).

    `image` is a uint8 `tv_tensors.Image` [3, height, width]. `target` has, of N masks,

    - `masks`: bool `tv_tensors.Mask` [N, height, width], or with `decode=False` their run lengths
      as `segmentation`, see `decode_masks`;
    - `boxes`: float32 `tv_tensors.BoundingBoxes` [N, 4], x1 y1 x2 y2 in pixels;
    - `labels`: int64 [N], 1..K, see `classes`; `scores`: float32 [N], cosines;
    - `probabilities`: float32 [N], 0..1, of runs with a calibration;

    or, with `semantic`, `semantic`: a uint8 `tv_tensors.Mask` [height, width], 0 background and 255
    ignored; and always `image_id`, `key`, `shard` and `position`, which `tracked` reads.

    Samples that the run has rejected are left out. Images without a mask that is taken have N = 0,
    and a map of background; `keep_empty=False` leaves them out, too.

    Workers of a `DataLoader` and ranks read different shards, and together every sample of an epoch
    exactly once: give each of them some shards. Ranks that have different numbers of samples do
    not end together.

    Attributes:
        classes: label → name; 0 is the background.
        labels: name → label; background categories of a semantic map are 0.
    """

    def __init__(
        self,
        images: str | Sequence[str],
        predictions: str,
        *,
        input_root: str = "",
        select: SelectionConfig | None = None,
        semantic: SemanticConfig | None = None,
        size: tuple[int, int] | None = None,
        decode: bool = True,
        keep_empty: bool = True,
        shuffle_buffer: int = 0,
        seed: int = 0,
        transform: Callable[[tv_tensors.Image, Target], Any] | None = None,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        """Find the shards, and what the run has committed of them.

        Args:
            images: shards, as `--input` of annotate.py has them.
            predictions: the run's output, on a disk or s3:// or gs://.
            input_root: as `--input_root` of the run.
            select: which masks are taken.
            semantic: give a label per pixel instead of masks.
            size: (height, width) that images and masks are brought to.
            decode: give pixels of masks, not run lengths.
            keep_empty: give images without a mask, too.
            shuffle_buffer: shuffle shards, and draw each sample from so many; 0 for the stored
                order, 1 to shuffle shards alone.
            seed: of the shuffling, and of what `transform` draws from torch.
            transform: torchvision's v2, or anything that takes (image, target); what it draws from
                torch depends on seed, epoch and image alone.
            rank: of this process; torchrun's without it.
            ranks: how many processes train together; torchrun's without it.

        Raises:
            ConfigError: a setting that cannot work, or shards and run do not fit together.
        """
        if not decode and (transform or size or semantic):
            raise ConfigError(
                "decode=False gives run lengths, which size, semantic and transform do not change"
            )
        if shuffle_buffer < 0:
            raise ConfigError(f"shuffle_buffer {shuffle_buffer}: must not be negative")
        patterns = [images] if isinstance(images, str) else list(images)
        run = Predictions(predictions, "predictions")
        select = select or SelectionConfig()
        if semantic is not None:
            semantic = semantic.of_run(run.identity)
        self.labels = dense_labels(run, select, semantic)
        self.classes = {0: "background"} | {n: name for name, n in self.labels.items() if n}
        self._pairs = pair_up(patterns, input_root, run)
        self._naming = Naming.of(run.identity)
        self._targets = TargetReader(run, self.labels, select, semantic is not None, keep_empty)
        self._semantic, self._size, self._decode = semantic, size, decode
        self._buffer, self._seed, self._transform = shuffle_buffer, seed, transform
        self._resize = v2.Resize(size, antialias=True) if size else None
        rank, ranks = _rank(rank, ranks)
        names = [shard.name for shard, _ in self._pairs]
        order = (names, repr(select), keep_empty, shuffle_buffer, seed)
        self._progress = Progress(digests.of_text(repr(order)), rank, ranks)

    def set_epoch(self, epoch: int) -> None:
        """Begin with an epoch; every iteration after this starts at its beginning.

        It also reaches persistent workers. Without it, epochs are the same.
        """
        self._progress.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this rank is in its epoch, as JSON values; see `tracked`.

        Raises:
            ConfigError: workers read ahead, and it is not known how much of that has been used.
        """
        return self._progress.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a dataset with the same settings was, until the next `set_epoch`.

        What comes is what would have come, in the same order and batches: the loader needs as many
        workers, and the same batch size.

        Raises:
            ConfigError: the state is of other settings, shards or ranks.
        """
        self._progress.load_state_dict(state)

    def tracked(self, loader: Iterable[Any]) -> Generator[Any, None, None]:
        """The batches of a loader over this dataset, so that `state_dict` counts them as used.

        Workers read ahead, and only this process knows which batches have been used: every target
        says which worker gave it, and after how many. Without workers, `state_dict` knows without.

        Args:
            loader: a `DataLoader`, with `collate` or torch's own collation of semantic maps.
        """
        self._progress.tracking = True
        for batch in loader:
            self._progress.note(batch[1])
            yield batch

    def __iter__(self) -> Iterator[LoadedSample]:
        worker = get_worker_info()
        if worker is not None:
            self._check_process()
        epoch = self._progress.epoch
        part, done = self._progress.begin(
            0 if worker is None else worker.id, 1 if worker is None else worker.num_workers
        )
        shuffle = self._buffer > 0
        stream = Stream(self._pairs, self._targets, self._naming)
        shards = shards_of_part(len(self._pairs), part, self._seed, epoch, shuffle)
        draw = random.Random(f"samples {self._seed} {epoch} {part.number}")
        try:
            places = shuffled(stream.places(shards), self._buffer, draw)
            for number, place in enumerate(places, 1):
                if number <= done:
                    stream.skip(place)
                    continue
                raw, targets = stream.take(place)
                self._progress.give(part, number)
                yield self._sample(self._pairs[place[0]][0].name, raw, targets, part, number)
        finally:
            stream.close()

    def _sample(
        self, shard: str, raw: RawSample, targets: ShardTargets, part: Part, number: int
    ) -> LoadedSample:
        known = targets.images[raw.index]
        try:
            image = tv_tensors.Image(decode_image(image_bytes(raw), NO_LIMIT))
        except Reject as reject:
            raise ConfigError(
                f"{shard}: {raw.key}: {reject}, and was readable when it was annotated; annotate "
                "the shard again"
            ) from reject
        target: Target = {
            "image_id": known.image_id,
            "key": known.key,
            "shard": shard,
            "position": (part.worker, part.workers, number),
        }
        if self._semantic is not None:
            target["semantic"] = targets.semantic(raw.index, self._size, self._semantic)
            if self._resize is not None:
                image = self._resize(image)
            return self._transformed(image, target, known.image_id)
        target |= targets.instances(raw.index)
        if self._decode:
            masks = decode_masks(target.pop("segmentation"), known.height, known.width)
            target["masks"] = tv_tensors.Mask(masks)
        if self._resize is not None:
            image, target = self._resize(image, target)
        return self._transformed(image, target, known.image_id)

    def _transformed(self, image: tv_tensors.Image, target: Target, image_id: int) -> LoadedSample:
        if self._transform is None:
            return image, target
        drawn = random.Random(f"transform {self._seed} {self._progress.epoch} {image_id}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(drawn.getrandbits(63))
            changed: LoadedSample = self._transform(image, target)
        return changed

    def _check_process(self) -> None:
        """Refuse what hangs: pyarrow's connections to object stores do not outlive a fork."""
        locations = (self._targets.predictions.location, self._pairs[0][0].location)
        if isinstance(multiprocessing.current_process(), ForkProcess) and any(
            storage.is_uri(location) and not storage.is_http(location) for location in locations
        ):
            raise ConfigError(
                "object stores cannot be read in forked workers: give the DataLoader "
                'multiprocessing_context="spawn"'
            )


def _rank(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """What is given, or what torch.distributed or torchrun says."""
    if rank is None and ranks is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank is None or ranks is None or not 0 <= rank < ranks:
        raise ConfigError(f"rank {rank}, ranks {ranks}: give both, the rank from 0")
    return rank, ranks
