"""The order of an epoch: a function of seed, epoch and who asks, and of nothing that is read."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """One of those that share an epoch: a worker of the data loader of a rank.

    Attributes:
        worker: number of it, from 0.
        workers: of each rank.
        rank: number of it, from 0.
        ranks: processes that train together.
    """

    worker: int
    workers: int
    rank: int
    ranks: int

    @property
    def number(self) -> int:
        """Among all parts. Ranks come first, so that few shards are spread over all of them."""
        return self.worker * self.ranks + self.rank


def shards_of_part(count: int, part: Part, seed: int, epoch: int, shuffle: bool) -> list[int]:
    """The shards, as numbers below `count`, that a part reads, in order.

    All parts of an epoch have the same order of all shards, and take turns in it.
    """
    order = list(range(count))
    if shuffle:
        random.Random(f"shards {seed} {epoch}").shuffle(order)
    return order[part.number :: part.workers * part.ranks]


def shuffled(items: Iterable[Item], buffer: int, generator: random.Random) -> Iterator[Item]:
    """The items, each drawn from the next `buffer` ones; as they come with a buffer below 2."""
    held: list[Item] = []
    for item in items:
        held.append(item)
        if len(held) >= buffer:
            place = generator.randrange(len(held)) if len(held) > 1 else 0
            held[place], held[-1] = held[-1], held[place]
            yield held.pop()
    generator.shuffle(held)
    yield from held
