"""Evaluation on the engine of annotation: shards in, mergeable counts out.

OUT/counts/<shard>.parquet holds the counts of a shard, and its commit says that they are complete.
Merging is putting tables one below the other, in the order of the shards' names, and adding up:
the result does not depend on which process counted what.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import torch

from pipeline import storage
from pipeline.config import RunConfig, fingerprint
from pipeline.errors import ConfigError, Reject, naming
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.predictions import Gaps
from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import StageClock
from pipeline.log import Event, say
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import Counts, make_commit
from pipeline.run.progress import print_failures
from pipeline.run.queue import Trial
from pipeline.run.run import run_shards
from pipeline.run.worker import ShardWorker
from pipeline.storage import parquet
from pipeline.storage.patience import START_SECONDS, patiently


@dataclass
class Counted:
    """What was counted in a shard.

    Attributes:
        rows: the counts, finest first: one row per thing that is counted.
        statuses: samples by what became of them.
        rejects: samples that could not be read, by reason.
        prompts: maps that were asked for.
        masks: maps that there were.
        degraded: a batch had to be made smaller for want of memory; last digits may differ.
        clock: seconds at each stage; is told by who counts.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    masks: int = 0
    degraded: bool = False
    clock: StageClock = field(default_factory=StageClock)

    def reject(self, reason: str) -> None:
        """Note a sample that cannot be read."""
        self.statuses["rejected"] += 1
        self.rejects[reason] += 1

    def leave_out(self, what: str, reject: Reject, **about: Any) -> None:
        """Note a sample that cannot be scored, and say which one it is.

        Args:
            what: it is, in words.
            reject: why.
            about: what it is, as fields of the event.
        """
        self.reject(reject.reason)
        line = f"left out: {what}: {reject}"
        say(Event("left_out", line, "warning", **about, reason=reject.reason))

    def totals(self) -> Counts:
        """What the commit of the shard says about it."""
        return {
            "samples": self.statuses.total(),
            "statuses": dict(sorted(self.statuses.items())),
            "rejects": dict(sorted(self.rejects.items())),
            "prompts": self.prompts,
            "prompts_cut": 0,
            "masks": self.masks,
        }


def read_file(location: str, named: str) -> bytes:
    """A file that belongs to a sample.

    Args:
        location: of it.
        named: what people know it by.

    Raises:
        Reject: `missing_file`.
    """
    try:
        return storage.read_bytes(location)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Reject("missing_file", named) from error


class ShardCounter(Protocol):
    """Counts one shard after the other; several threads may call it at once."""

    SCHEMA: pa.Schema
    """Columns of the counts."""

    def __call__(self, shard: Shard, on_images: Callable[[int], object]) -> Counted:
        """Count a whole shard, and tell of every few images that are done."""


MakeCounter = Callable[[], ShardCounter]


class CountingWorker(ShardWorker):
    """Counts shards, and commits the counts of each."""

    def __init__(self, make_counter: MakeCounter, made: str, config: RunConfig) -> None:
        """Make the counter; it may load a model, and raise what that raises.

        Args:
            make_counter: makes what counts.
            made: fingerprint of the settings that the counts depend on.
            config: of the run.
        """
        torch.set_num_threads(config.engine.cpu_threads())
        super().__init__(config)
        self.count, self._made = make_counter(), made

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        """Count the shard and commit it.

        Raises:
            ShardError: the shard cannot be read to its end; nothing was written.
            NotWritten: the output cannot be written; nothing was committed.
        """
        shard, started = trial.shard, time.monotonic()

        def step(images: int) -> None:
            on_images(images)
            alive()

        counted = self.count(shard, step)
        with counted.clock.measure("write"):
            data = parquet.of_rows(counted.rows, self.count.SCHEMA)
        files = {f"counts/{shard.name}.parquet": data}
        commit = make_commit(
            shard,
            self._made,
            counted.totals(),
            files,
            seconds=time.monotonic() - started,
            attempt=trial.number,
            degraded=counted.degraded,
        )
        self.commit(commit, files, counted.clock)


@dataclass(frozen=True)
class Merged:
    """The counts of all shards.

    Attributes:
        table: theirs, one below the other.
        samples: images by what became of them.
        rejects: images that could not be read, by reason.
        missing: shards without counts.
        fingerprint: of the settings that the counts depend on.
        identity: these settings.
        gaps: of the run whose masks were counted; None where maps were.
    """

    table: pa.Table
    samples: dict[str, int]
    rejects: dict[str, int]
    missing: list[str]
    fingerprint: str
    identity: dict[str, Any]
    gaps: Gaps | None = None


def count_shards(
    config: EvaluationConfig,
    shards: Sequence[Shard],
    identity: Mapping[str, Any],
    make_counter: MakeCounter,
    files: Mapping[str, bytes] | None = None,
    gaps: Gaps | None = None,
) -> Merged:
    """Count every shard that has no commit yet, and merge the counts of all.

    Args:
        config: of the run.
        shards: all of them.
        identity: the settings that the counts depend on, as JSON values.
        make_counter: called once in every worker process; has to travel there.
        files: path below the output → what workers read from there.
        gaps: of the run whose masks are counted.

    Raises:
        ConfigError: the output cannot be written, or holds counts of other settings, or an
            annotation run.
        ModelError: the model does not load.
    """
    for note in gaps.notes() if gaps else []:
        print(note)
    made = fingerprint(dict(identity))
    ledger = Ledger(config.output)
    output = f"--output {storage.public(config.output)}"
    patience = config.engine.patience_seconds

    def begin() -> None:
        with naming(output):
            _refuse_annotations(ledger)
            ledger.open(dict(identity), config.recorded(), [], redo=config.on_mismatch == "redo")
            for path, data in (files or {}).items():
                storage.write_bytes(storage.join(config.output, *path.split("/")), data)

    patiently(begin, output, START_SECONDS)
    summary = run_shards(config, ledger, shards, partial(CountingWorker, make_counter, made))
    print_failures(patiently(ledger.failures, output, patience), summary)
    names = sorted({shard.name for shard in shards} - set(summary.missing))
    tables = [patiently(partial(ledger.read, "counts", name), output, patience) for name in names]
    if not tables:
        raise ConfigError(f"no shard could be counted; see {config.output}/failed")
    return Merged(
        table=pa.concat_tables(tables, promote_options="default"),
        samples=summary.statuses,
        rejects=summary.rejects,
        missing=summary.missing,
        fingerprint=made,
        identity=dict(identity),
        gaps=gaps,
    )


def _refuse_annotations(ledger: Ledger) -> None:
    """Masks are dear: no evaluation starts over where they lie, whatever --on_mismatch says.

    Raises:
        ConfigError: an annotation run is there, be it without its `run.json`.
    """
    found = ledger.identity()
    tables = storage.list_names(storage.join(ledger.output, "annotations"), ".parquet")
    if tables or (found and "metric" not in found):
        raise ConfigError(
            f"--output {ledger.output}: holds an annotation run, which no evaluation deletes; name "
            "another place"
        )
