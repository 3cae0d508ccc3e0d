"""An export, whatever the format: shard by shard, then the files that make it complete."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline import storage
from pipeline.errors import ConfigError, ShardError, naming, one_line
from pipeline.export import instances
from pipeline.export.config import ExportConfig
from pipeline.export.instances import Selected
from pipeline.export.pictures import check_pictures
from pipeline.export.state import State, Totals
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit
from pipeline.outputs.schema import calibrated
from pipeline.run.progress import shown

Config = TypeVar("Config", bound=ExportConfig)


class Format(ABC, Generic[Config]):
    """Writes what one kind of client reads.

    Attributes:
        config: the settings.
        predictions: the run.
        categories: names; the first has number 1.
        state: of the output.
    """

    def __init__(
        self, config: Config, predictions: Predictions, categories: Sequence[str], state: State
    ) -> None:
        self.config, self.predictions = config, predictions
        self.categories, self.state = categories, state

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts of the data; one, and empty, without --split."""
        return list(self.config.shares())

    @property
    def columns(self) -> Sequence[str]:
        """Of `annotations/`, that it needs beside those of every format."""
        return ()

    @abstractmethod
    def last_files(self) -> Sequence[str]:
        """Paths below the output of the files that clients open first."""

    @abstractmethod
    def write_shard(self, selected: Selected) -> Counter[str]:
        """Write what comes of a shard.

        Returns:
            What the format cannot say → how often.
        """

    @abstractmethod
    def finish(self, commits: Sequence[Commit]) -> None:
        """Write `last_files`, out of what `write_shard` has written."""


@dataclass
class Gauge:
    """How far an export is."""

    shards: int
    of_shards: int
    images: int
    of_images: int
    objects: int = 0

    def __post_init__(self) -> None:
        self._started, self._before = time.monotonic(), self.images

    @property
    def fraction(self) -> float:
        """Done, by images."""
        return self.images / self.of_images if self.of_images else 1.0

    def line(self) -> str:
        """Shards, images, objects and pace."""
        pace = (self.images - self._before) / (time.monotonic() - self._started)
        return (
            f"{self.shards:,} of {self.of_shards:,} shards, {self.images:,} of "
            f"{self.of_images:,} images, {self.objects:,} objects, {pace:.1f} images/s"
        )


def export(config: Config, make: type[Format[Config]]) -> Totals:
    """Make an export complete; what is done of it is not done again.

    Raises:
        ConfigError: the run cannot be exported so, or the output cannot be used.
    """
    predictions = Predictions(config.predictions)
    categories = instances.categories_of(predictions, config)
    if missing := predictions.missing:
        print(f"the run is not complete: {len(missing)} of its shards are missing", flush=True)
    identity = config.identity() | {
        "predictions": predictions.identity,
        "categories": categories,
    }
    if calibrated(predictions.identity):
        identity["objects"] = "with probability"  # parts that are there already may have none
    state = State(config.output, identity)
    written = make(config, predictions, categories, state)
    images = check_pictures(predictions, config)
    with naming(f"--output {storage.public(config.output)}"):
        complete = state.open(predictions.commits, written.last_files())
    if complete is not None:
        print("complete already; nothing was done", flush=True)
        return complete
    try:
        with _no_collections():
            totals = _write(written, images)
    except (OSError, ShardError) as error:
        raise ConfigError(f"stopped: {one_line(error)}; the same command goes on") from error
    if not totals.taken:
        why = Counter[str]()
        for (setting, _), count in totals.dropped.items():
            why[setting] += count
        state.give_up()
        reasons = ", ".join(f"{setting} drops {count:,}" for setting, count in why.items())
        raise ConfigError(f"{predictions}: no mask is left to export ({reasons or 'it has none'})")
    try:
        state.check_owner()
        written.finish(predictions.commits)
        state.close(predictions.commits, totals)
    except OSError as error:
        raise ConfigError(f"stopped: {one_line(error)}; the same command goes on") from error
    return totals


@contextmanager
def _no_collections() -> Iterator[None]:
    """Hardly anything here is on a cycle, and to look for some takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write(written: Format[Config], images: int) -> Totals:
    """Do what is not done."""
    state, predictions, config = written.state, written.predictions, written.config
    for path in written.last_files():
        storage.remove(state.path(path))
    done = state.done(predictions.commits)
    totals = Totals()
    for before in done.values():
        totals.add(before)
    if done:
        print(f"{len(done):,} of {len(predictions.commits):,} shards are done", flush=True)
    objects = totals.taken.total()
    gauge = Gauge(len(done), len(predictions.commits), totals.images, images, objects)
    with shown(gauge, config.log_seconds):
        for commit in predictions.commits:
            if commit.shard in done:
                continue
            selected = instances.select(
                predictions, commit, config, written.categories, written.columns
            )
            state.check_owner()
            lost = written.write_shard(selected)
            taken = instances.taken(selected)
            of_shard = Totals(len(selected.pictures), taken, selected.dropped, lost)
            state.record(commit, of_shard)
            totals.add(of_shard)
            gauge.shards += 1
            gauge.images += of_shard.images
            gauge.objects += taken.total()
    return totals
