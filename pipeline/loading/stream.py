"""Samples in any order out of shards that are read once, from front to back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator

from pipeline import storage
from pipeline.errors import ConfigError, ShardError
from pipeline.inputs.naming import Naming
from pipeline.inputs.shards import Shard
from pipeline.inputs.tars import RawSample, read_samples
from pipeline.loading.pairs import Pair
from pipeline.loading.targets import ShardTargets
from pipeline.outputs.records import Commit

Place = tuple[int, int]
"""Number of a shard, and position of a sample in it."""


class Stream:
    """The encoded samples of some shards.

    What has been read and not been taken is held: with places that are drawn from a buffer, at
    most what is in the buffer. Shards of which nothing is left to take are not opened.
    """

    def __init__(
        self, pairs: list[Pair], targets: Callable[[Commit], ShardTargets], naming: Naming
    ) -> None:
        self._pairs, self._read_targets, self._naming = pairs, targets, naming
        self._targets: dict[int, ShardTargets] = {}
        self._left: dict[int, set[int]] = {}  # of every shard begun: positions not taken or skipped
        self._ahead: deque[int] = deque()  # shards begun and not opened
        self._held: dict[Place, RawSample] = {}
        self._front: Generator[tuple[Place, RawSample], None, None] | None = None

    def places(self, shards: Iterable[int]) -> Iterator[Place]:
        """Every sample of some shards; each shard is begun when its first place is asked for."""
        for number in shards:
            targets = self._read_targets(self._pairs[number][1])
            if targets.images:
                self._targets[number] = targets
                self._left[number] = set(targets.images)
                self._ahead.append(number)
                yield from ((number, index) for index in targets.images)

    def skip(self, place: Place) -> None:
        """Say that a place will not be taken."""
        number, index = place
        self._left[number].discard(index)
        self._forget(number)

    def take(self, place: Place) -> tuple[RawSample, ShardTargets]:
        """The sample at a place, and the targets of its shard.

        Raises:
            ConfigError: it is not what the run has seen there.
            ShardError: the shard cannot be read so far.
        """
        while place not in self._held:
            found = next(self._front, None) if self._front else None
            if found is None:
                self._open_next(place)
            else:
                self._held[found[0]] = found[1]
        number, index = place
        raw, targets = self._held.pop(place), self._targets[number]
        if raw.key != targets.images[index].key:
            raise ConfigError(
                f"{self._shard(number)}: sample {index} is {raw.key}, and was "
                f"{targets.images[index].key} when it was annotated; annotate the shard again"
            )
        self._left[number].discard(index)
        self._forget(number)
        return raw, targets

    def close(self) -> None:
        """Close the shard that is open."""
        if self._front:
            self._front.close()

    def _open_next(self, place: Place) -> None:
        while self._ahead:
            number = self._ahead.popleft()
            if number in self._left:
                self._front = self._read(number, frozenset(self._left[number]))
                return
        raise ConfigError(
            f"{self._shard(place[0])}: ends before sample {place[1]}; annotate the shard again"
        )

    def _read(
        self, number: int, wanted: frozenset[int]
    ) -> Generator[tuple[Place, RawSample], None, None]:
        """The wanted samples of a shard; what comes after the last of them is not read."""
        last = max(wanted)
        try:
            with storage.open_read(self._pairs[number][0].location) as stream:
                for raw in read_samples(stream, naming=self._naming):
                    if raw.index in wanted:
                        yield (number, raw.index), raw
                    if raw.index == last:
                        return
        except ShardError as error:
            raise ShardError(f"{self._shard(number)}: {error}") from error

    def _forget(self, number: int) -> None:
        if not self._left[number]:
            del self._left[number], self._targets[number]

    def _shard(self, number: int) -> str:
        shard: Shard = self._pairs[number][0]
        return storage.public(shard.location)
