"""What is written down about a shard that is done, and the totals over many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import STAGES
from pipeline.outputs.books.busy import bound_by, busy, decoding, flying
from pipeline.storage import digests

STATUSES = ("annotated", "empty", "rejected")
"""What can become of a sample."""

TOTALS = ("samples", "prompts", "prompts_cut", "masks", "degraded")
"""What is added up over commits as it is."""


class Counts(TypedDict):
    """What was counted in a shard; see `Commit`."""

    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    prompts_cut: int
    masks: int


@dataclass(frozen=True)
class Commit:
    """The record that a shard is done.

    Attributes:
        shard: its name.
        fingerprint: of the settings that made it.
        uri: its normalised location.
        bytes: its size when it was read.
        samples: in the shard.
        statuses: samples by status.
        rejects: rejected samples by reason.
        prompts: (image, prompt) pairs looked for.
        prompts_cut: of these, how many were longer than the model's context.
        masks: rows in the annotation table.
        files: path below the output → size in bytes and sha256.
        seconds: from opening the shard to its last table, which lies in the output then.
        attempt: which attempt succeeded, from 1.
        degraded: batches were made smaller for want of memory; last digits may differ.
        incomplete: why the shard could only be read in part; empty when it was read whole.
        names: categories that were looked for and have their id from their name alone.
        stages: seconds by stage; see `StageClock`. Before there was `decode` among them, `read` was
            the wait for images, their decoding included; before that, there were none.
        modified: when the shard had been written, as `Shard.modified` says; empty where unknown.
        processor: seconds of processor time by stage, where they were measured.
        threads: that decoded it; 0 where that is not known.
    """

    shard: str
    fingerprint: str
    uri: str
    bytes: int
    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    prompts_cut: int
    masks: int
    files: dict[str, dict[str, int | str]]
    seconds: float
    attempt: int
    degraded: bool
    incomplete: str
    names: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    modified: str = ""
    processor: dict[str, float] = field(default_factory=dict)
    threads: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a shard was given up.

    Attributes:
        reason: in one line.
        transient: nothing may be wrong with the shard itself, so that the next run tries it again.
    """

    reason: str
    transient: bool = False

    def __str__(self) -> str:
        again = " (transient: the same command tries it again)" if self.transient else ""
        return f"{self.reason}{again}"


def make_commit(
    shard: Shard,
    fingerprint: str,
    counts: Counts,
    files: Mapping[str, bytes],
    *,
    seconds: float,
    attempt: int,
    degraded: bool = False,
    incomplete: str = "",
    names: Sequence[str] = (),
    stages: Mapping[str, float] | None = None,
    threads: int = 0,
) -> Commit:
    """The record of a shard, from what is known of it and its complete files by their paths."""
    return Commit(
        shard=shard.name,
        fingerprint=fingerprint,
        uri=shard.uri,
        bytes=shard.size,
        **counts,
        files={path: file_record(data) for path, data in files.items()},
        seconds=round(seconds, 3),
        attempt=attempt,
        degraded=degraded,
        incomplete=incomplete,
        names=list(names),
        stages={stage: round(seconds, 3) for stage, seconds in (stages or {}).items()},
        modified=shard.modified,
        threads=threads,
    )


@dataclass(frozen=True)
class Summary:
    """Totals over the commits of a run.

    Attributes:
        state: `running`, `finished` or `stopped`: by somebody, or as the storage was away for too
            long, and some shards were not reached. A run that was killed stays `running`, and its
            driver gives no more signs of life.
        planned: shards in the input.
        shards: committed.
        missing: names of the shards that should be there and are not.
        samples: in the committed shards.
        statuses: samples by status.
        rejects: rejected samples by reason.
        prompts: (image, prompt) pairs looked for.
        prompts_cut: of these, how many were longer than the model's context.
        masks: written.
        degraded: shards with batches made smaller for want of memory.
        incomplete: shards that were read in part only, and why.
        seconds: sum over the shards, each on its worker.
        driver: who wrote this; see `heartbeat.Driver`. Empty where nobody drives a run.
        stages: seconds by stage, of the shards whose commits have all of them.
        stage_seconds: of `seconds`, those of these shards.
        threads: that decoded one of them, on average over these seconds; 0 if unknown.
        busy: part of its time for which each stage was busy; see `books.busy`. Empty if unknown.
        bound_by: the stage with the largest part; empty if unknown.
        cost: what the output has taken so far; see `books.cost`. Empty if unknown.
    """

    state: str
    planned: int
    shards: int
    missing: list[str]
    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    prompts_cut: int
    masks: int
    degraded: int
    incomplete: dict[str, str]
    seconds: float
    driver: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    stage_seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)
    bound_by: str = ""
    cost: dict[str, Any] = field(default_factory=dict)
    threads: float = 0.0

    @classmethod
    def of(cls, commits: Iterable[Commit], missing: Iterable[str], state: str) -> Summary:
        """The totals of some commits, each of which is looked at once."""
        statuses, rejects, totals = Counter[str](), Counter[str](), Counter[str]()
        incomplete: dict[str, str] = {}
        seconds, stage_seconds, stages = 0.0, 0.0, dict.fromkeys(STAGES, 0.0)
        thread_seconds, all_say = 0.0, True
        for commit in commits:
            for status, count in commit.statuses.items():
                statuses[status] += count
            for reason, count in commit.rejects.items():
                rejects[reason] += count
            for name in TOTALS:
                totals[name] += getattr(commit, name)
            totals["shards"] += 1
            seconds += commit.seconds
            if commit.stages.keys() >= stages.keys():
                stage_seconds += commit.seconds
                thread_seconds += commit.seconds * commit.threads
                all_say = all_say and commit.threads > 0
                for stage in STAGES:
                    stages[stage] += commit.stages[stage]
            if commit.incomplete:
                incomplete[commit.shard] = commit.incomplete
        absent = sorted(missing)
        return cls(
            state=state,
            planned=totals["shards"] + len(absent),
            shards=totals["shards"],
            missing=absent,
            statuses=dict(sorted(statuses.items())),
            rejects=dict(sorted(rejects.items())),
            samples=totals["samples"],
            prompts=totals["prompts"],
            prompts_cut=totals["prompts_cut"],
            masks=totals["masks"],
            degraded=totals["degraded"],
            incomplete=incomplete,
            seconds=round(seconds, 3),
            stages={s: round(n, 3) for s, n in stages.items()} if stage_seconds else {},
            stage_seconds=round(stage_seconds, 3),
            threads=round(thread_seconds / stage_seconds, 3) if stage_seconds and all_say else 0.0,
        )

    def with_busy(self, engine: Mapping[str, Any]) -> Summary:
        """The same, and what bounds the run, by the settings of its engine where they are known."""
        if not self.stages or "shards_in_flight" not in engine:
            return self
        threads = self.threads or decoding(engine.get("threads", 0))
        in_flight = flying(engine, self.shards)
        shares = busy(self.stages, self.stage_seconds, in_flight, threads)
        return replace(self, busy=shares, bound_by=bound_by(shares))


def file_record(data: bytes) -> dict[str, int | str]:
    """Size and checksum of a file, as commits store them."""
    return {"bytes": len(data), "sha256": digests.of_bytes(data, digests.FULL)}
