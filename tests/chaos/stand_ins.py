"""A worker whose model is no model, and which has the trouble that it is told to have."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import AnnotateConfig
from pipeline.inputs.samples import Sample
from pipeline.models.explain import Maps
from pipeline.run.queue import Trial
from pipeline.run.worker import Worker

HEADROOM = 256 << 20
"""Bytes that a worker may leak."""
SEGMENT = 16 << 20


@dataclass(frozen=True)
class Trouble:
    """What happens to workers, and when.

    What can happen is `exit`, `segfault`, `kill`, `leak`, `raise`, `sleep` and `hold` (a sleep that
    never lets the interpreter go).

    Attributes:
        loading: what happens while the model is loaded; empty for nothing.
        shards: what happens with a shard → that, by what its name begins with.
        times: how often each of it happens, counted over all workers; None for always.
        node: the only Ray node on which it happens; empty for all.
        seconds: that every batch takes.
    """

    loading: str = ""
    shards: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    node: str = ""
    seconds: float = 0.08


class Blank:
    """Stands in for a model: finds another slope for every key, after a while."""

    device = torch.device("cpu")
    embed_width = 0
    heat_order = HeatOrder.UPSAMPLE_NORMALISE

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def squash(self, pixels: Tensor) -> Tensor:
        """Nothing of the image is used."""
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def has_prompts(self, sample: Sample) -> bool:
        """As for a real model."""
        return bool(sample.wanted)

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        """As many columns of 16 are hot as the key says."""
        time.sleep(self._seconds)
        made = []
        for sample in samples:
            many, number = len(sample.wanted), zlib.crc32(sample.key.encode())
            slope = (torch.linspace(0, 1, 16) > number % 13 / 16).float().expand(many, 16, 16)
            texts = [prompt.texts[0] for prompt in sample.wanted]
            made.append(Maps(sample.wanted, slope, [number / 2**32] * many, texts, 0))
        return made


CLOSED = "closed"
"""While a file of this name is in the folder of a case, its workers begin no shard."""


class StandIn(Worker):
    """Leaves its process number and its node in `folder`, and has some trouble."""

    def __init__(self, config: AnnotateConfig, trouble: Trouble, folder: str) -> None:
        self._trouble, self._folder = trouble, Path(folder)
        self._node = _node() if config.engine.executor == "ray" else ""
        self._note("loading")
        self._maybe(trouble.loading, "loading")
        super().__init__(config, lambda _: Blank(trouble.seconds))
        self._flying = 0
        self._note("loaded")

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        """As a real one does, unless there is trouble."""
        if (self._folder / CLOSED).exists():
            self._note("held")
        while (self._folder / CLOSED).exists():
            alive()
            time.sleep(0.01)
        self._note("busy")
        self._flying += 1
        for name, what in self._trouble.shards.items():
            if trial.shard.name.startswith(name):
                self._maybe(what, name)
        super().do_shard(trial, on_images, alive)
        self._flying -= 1
        if not self._flying:
            self._note("done")

    def _note(self, kind: str) -> None:
        notes = self._folder / kind
        notes.mkdir(exist_ok=True)
        (notes / str(os.getpid())).write_text(self._node)

    def _maybe(self, what: str, where: str) -> None:
        if what and self._trouble.node in ("", self._node) and self._is_its_turn(where):
            TROUBLES[what]()

    def _is_its_turn(self, where: str) -> bool:
        """Whoever makes one of the files has the trouble."""
        for number in range(100 if self._trouble.times is None else self._trouble.times):
            try:
                (self._folder / f"trouble-{where}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False


def _node() -> str:
    import ray  # a local run has none

    return str(ray.get_runtime_context().get_node_id())


def _exit() -> NoReturn:
    os._exit(1)


def _segfault() -> None:
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _leak() -> NoReturn:
    """Take memory until there is none; what the kernel does then, the process does here."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, resource.RLIM_INFINITY))
    kept = []
    while True:
        try:
            kept.append(bytearray(SEGMENT))
        except MemoryError:
            _kill()


def _raise() -> NoReturn:
    raise RuntimeError("it cannot be done")


def _sleep() -> None:
    time.sleep(3600)


def _hold() -> None:
    """A regular expression backtracks for ages in C, and never lets the interpreter go."""
    re.match(r"(a+)+$", "a" * 60 + "b")


TROUBLES: dict[str, Callable[[], None]] = {
    "exit": _exit,
    "segfault": _segfault,
    "kill": _kill,
    "leak": _leak,
    "raise": _raise,
    "sleep": _sleep,
    "hold": _hold,
}
