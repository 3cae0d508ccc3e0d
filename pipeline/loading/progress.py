"""How far an epoch is, in this process and in the workers that read for it.

The workers of a `DataLoader` give batches in turns, and one that has no more is passed over. So the
number of samples that each has given, and whose turn it is, say all: a loader that goes on has its
first worker, which it asks first, do the part of the one whose turn it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.loading.order import Part

EPOCH, TOKEN, WORKERS_READ = 0, 1, 2
"""Places of what all processes share."""


@dataclass(frozen=True)
class Start:
    """Where iterations begin.

    Attributes:
        token: which `load_state_dict` says so; 0 for the beginning.
        workers: of the loader; 0 for any.
        given: samples that each has given; missing for none.
        turn: the worker that gives the next batch.
    """

    token: int = 0
    workers: int = 0
    given: Mapping[int, int] = field(default_factory=dict)
    turn: int = 0


class Progress:
    """The epoch, and how much of it has been given.

    Attributes:
        tracking: batches are noted in this process.
    """

    def __init__(self, settings: str, rank: int, ranks: int) -> None:
        """Begin with epoch 0.

        Args:
            settings: what the order of samples depends on, as a digest.
            rank: of this process.
            ranks: how many there are.
        """
        self._settings, self._rank, self._ranks = settings, rank, ranks
        self._shared = torch.zeros(3, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._loads = 0
        self._start = Start()
        self._workers, self._turn = 0, 0
        self._given: dict[int, int] = {}
        self.tracking = False

    @property
    def epoch(self) -> int:
        """The epoch, in every process."""
        return int(self._shared[EPOCH])

    def set_epoch(self, epoch: int) -> None:
        """Let iterations begin at the beginning of an epoch."""
        self._shared[EPOCH] = epoch
        self._begin_at(Start())

    def begin(self, worker: int, workers: int) -> tuple[Part, int]:
        """The part of an epoch that a worker reads, and how many samples of it have been given.

        Raises:
            ConfigError: the state that was loaded is of another number of workers, or was loaded
                after persistent workers had started.
        """
        start, token = self._start, int(self._shared[TOKEN])
        if token == 0:
            start = Start()
        elif token != start.token:
            raise ConfigError(
                "load_state_dict: persistent workers have started before it; make a new DataLoader"
            )
        elif start.workers not in (0, workers):
            raise ConfigError(
                f"load_state_dict: the state is of a DataLoader with num_workers={start.workers}, "
                f"and this one has {workers} (0 and 1 count as the same)"
            )
        part = Part((worker + start.turn) % workers, workers, self._rank, self._ranks)
        done = start.given.get(part.worker, 0)
        if torch.utils.data.get_worker_info() is None:
            self._given, self._workers, self._turn = {0: done}, 1, 0
        else:
            self._shared[WORKERS_READ] = 1
        return part, done

    def give(self, part: Part, number: int) -> None:
        """Note in the process that reads that a sample, the `number`-th of its part, is given."""
        self._given[part.worker] = number

    def note(self, targets: Any) -> None:
        """Note the targets of a batch as used.

        Args:
            targets: a list of them, or one with the positions of all.
        """
        if isinstance(targets, Mapping):
            worker, workers, number = (int(column[-1]) for column in targets["position"])
        else:
            worker, workers, number = targets[-1]["position"]
        self._given[worker] = number
        self._workers, self._turn = workers, (worker + 1) % workers

    def state_dict(self) -> dict[str, Any]:
        """See `MaskDataset.state_dict`."""
        if self._shared[WORKERS_READ] and not self.tracking:
            raise ConfigError(
                "state_dict: workers read ahead of what has been used; iterate over "
                "dataset.tracked(loader)"
            )
        return {
            "settings": self._settings,
            "rank": self._rank,
            "ranks": self._ranks,
            "epoch": self.epoch,
            "workers": self._workers,
            "given": [list(pair) for pair in sorted(self._given.items())],
            "turn": self._turn,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `MaskDataset.load_state_dict`."""
        for name in ("settings", "rank", "ranks"):
            if state[name] != getattr(self, f"_{name}"):
                what = {"settings": "other shards, filters, seed or shuffling"}.get(
                    name, f"{name} {state[name]}, and this is {getattr(self, f'_{name}')}"
                )
                raise ConfigError(f"load_state_dict: the state is of {what}")
        self._shared[EPOCH] = state["epoch"]
        self._loads += 1
        given = {int(worker): int(number) for worker, number in state["given"]}
        self._begin_at(Start(self._loads, state["workers"], given, state["turn"]))

    def _begin_at(self, start: Start) -> None:
        self._start = start
        self._shared[TOKEN] = start.token
        self._shared[WORKERS_READ] = 0
        self._given, self._workers = dict(start.given), start.workers
        self._turn, self.tracking = start.turn, False
