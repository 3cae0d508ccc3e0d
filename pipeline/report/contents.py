"""The numbers of the page, as `report.json` has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.config import fingerprint
from pipeline.inputs.stages import STAGES
from pipeline.outputs.books.ownership import flattened
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit, Summary
from pipeline.report.bins import AREA, HEAT, MASKS, RAW_MAX, SCORE, Bins
from pipeline.report.statistics import Statistics

VERSION = 1
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75)
"""Of the masks, that the score filters of the table drop."""
LISTED = 50
"""Shards and names that are listed at the most."""
SLOWEST = 5
LONGEST = 160
"""Characters of a text out of data."""


@dataclass(frozen=True)
class Listing:
    """Names with a text each, the first of them listed."""

    total: int
    listed: list[tuple[str, str]]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Listing:
        """All of them, the first ones listed by name."""
        names = sorted(texts)[:LISTED]
        return cls(len(texts), [(cut(name), cut(texts[name])) for name in names])


@dataclass(frozen=True)
class Run:
    """What was run.

    Attributes:
        location: of the output.
        state: of the last run over it.
        planned: shards of the input.
        settings: that change results, by dotted name.
        versions: of the packages it began with.
    """

    location: str
    input: list[str]
    state: str
    planned: int
    fingerprint: str
    schema_version: int
    settings: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Reject:
    """Rejected samples of one reason, with the first examples: shard, key, detail."""

    reason: str
    count: int
    examples: list[dict[str, str]]


@dataclass(frozen=True)
class Scores:
    """Mean and quantiles of some scores; None of none."""

    mean: float | None
    p10: float | None
    p50: float | None
    p90: float | None


@dataclass(frozen=True)
class ClassRow:
    """Masks of a class.

    Attributes:
        name: of the class, or of what a row stands for.
        masks: of it.
        images: with a mask of it.
        score: of its masks.
        area_mean: part of the image that they cover.
        area_p50: the same, median.
        dropped: masks with a score below each of the levels.
    """

    name: str
    masks: int
    images: int
    score: Scores
    area_mean: float
    area_p50: float | None
    dropped: list[int]


@dataclass(frozen=True)
class Level:
    """What `--select.score LIMIT` would do.

    Attributes:
        share: of all masks that the limit was looked for to drop.
        limit: least score.
        dropped: masks below it.
        emptied: images that would lose their last mask.
    """

    share: float
    limit: float
    dropped: int
    emptied: int


@dataclass(frozen=True)
class Histogram:
    """Counts from each edge to the next, from the first to the last that is not empty.

    `first_bin` is the number of the first among all bins, from 0.
    """

    first_bin: int
    edges: list[float]
    counts: list[int]
    p10: float | None
    p50: float | None
    p90: float | None

    @classmethod
    def of(cls, bins: Bins, counts: np.ndarray) -> Histogram:
        """The bins that are in use."""
        used = np.flatnonzero(counts)
        start, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        return cls(
            start,
            bins.edges[start : end + 1].tolist() if end else [],
            counts[start:end].tolist(),
            *(bins.quantile(counts, share) for share in (0.1, 0.5, 0.9)),
        )


@dataclass(frozen=True)
class Times:
    """Where the time went, in seconds of workers.

    Attributes:
        seconds: of all shards.
        stages: seconds by stage; empty where no commit says.
        images_per_second: of a shard, on average.
        slowest: shards, with their samples and seconds.
    """

    seconds: float
    stages: dict[str, float]
    images_per_second: float | None
    slowest: list[dict[str, Any]]


@dataclass(frozen=True)
class Contents:
    """Everything that the page says, without its pictures."""

    report_version: int
    run: Run
    totals: Summary
    missing: Listing
    incomplete: Listing
    degraded: Listing
    rejects: list[Reject]
    without_mask: dict[str, int]
    classes: list[ClassRow]
    other_classes: int
    classes_without_mask: Listing
    scores_not_finite: int
    levels: list[Level]
    histograms: dict[str, Histogram]
    times: Times


def make_contents(predictions: Predictions, counted: Statistics) -> Contents:
    """The numbers of a run that has been counted."""
    commits, ledger = predictions.commits, Ledger(predictions.location)
    missing = predictions.missing
    state, planned = ledger.last_run()
    totals = Summary.of(commits, missing, state).with_busy(ledger.engine())
    totals = replace(totals, cost=ledger.cost().record())
    levels = _levels(counted)
    rows = _class_rows(counted, levels)
    found = {
        name for name, masks in zip(counted.classes.names, counted.masks, strict=False) if masks
    }
    without = {*predictions.categories.values()} - found
    return Contents(
        report_version=VERSION,
        run=_run(predictions, ledger.run(), state, max(planned, totals.planned)),
        totals=totals,
        missing=Listing.of(missing),
        incomplete=Listing.of(totals.incomplete),
        degraded=Listing.of({c.shard: "" for c in commits if c.degraded}),
        rejects=_rejects(totals.rejects, counted),
        without_mask=dict(counted.without_mask.most_common()),
        classes=rows,
        other_classes=counted.classes.others,
        classes_without_mask=Listing.of(
            {} if counted.classes.others else dict.fromkeys(without, "")
        ),
        scores_not_finite=counted.not_finite,
        levels=levels,
        histograms={
            "score": Histogram.of(SCORE, counted.score.sum(0)),
            "raw_max": Histogram.of(RAW_MAX, counted.raw_max),
            "area": Histogram.of(AREA, counted.area.sum(0)),
            "heat_mean": Histogram.of(HEAT, counted.heat),
            "masks_per_image": Histogram.of(MASKS, counted.per_image),
        },
        times=_times(commits),
    )


def cut(text: str) -> str:
    """A text out of data, no longer than a page can bear."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _run(predictions: Predictions, record: Mapping[str, Any], state: str, planned: int) -> Run:
    identity = predictions.identity
    given = record.get("config", {}).get("input", [])
    patterns = [given] if isinstance(given, str) else list(given)
    settings = {
        name: cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in sorted(flattened(identity).items())
    }
    return Run(
        location=storage.public(predictions.location),
        input=[cut(pattern) for pattern in patterns[:LISTED] if pattern],
        state=state,
        planned=planned,
        fingerprint=fingerprint(identity),
        schema_version=identity["schema_version"],
        settings=settings,
        versions=record.get("versions", {}),
    )


def _rejects(counts: Mapping[str, int], counted: Statistics) -> list[Reject]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        Reject(reason, count, [_cut_values(row) for row in counted.examples.get(reason, [])])
        for reason, count in ordered
    ]


def _cut_values(row: Mapping[str, str]) -> dict[str, str]:
    return {name: cut(text) for name, text in row.items()}


def _levels(counted: Statistics) -> list[Level]:
    """For each share the limit, of three digits, that drops nearest to so many."""
    counts = counted.score.sum(0)
    total = int(counts.sum())
    below, emptied = (np.append(0, np.cumsum(c)) for c in (counts, counted.best_score))
    levels: dict[int, Level] = {}
    for share in SHARES:
        place = SCORE.place(counts, share)
        if place is None:
            continue
        edge = min((place, place + 1), key=lambda at: abs(int(below[at]) - share * total))
        limit = float(SCORE.edges[edge])
        levels.setdefault(edge, Level(share, limit, int(below[edge]), int(emptied[edge])))
    return list(levels.values())


def _class_rows(counted: Statistics, levels: list[Level]) -> list[ClassRow]:
    """The classes that have masks, those with the most first, and what is summed up last."""
    names = counted.classes.names
    order = sorted(range(len(names)), key=lambda code: (-int(counted.masks[code]), names[code]))
    rows = [_class_row(counted, levels, code, names[code]) for code in order if counted.masks[code]]
    if counted.classes.others:
        name = f"{counted.classes.others:,} other classes"
        rows.append(_class_row(counted, levels, len(names), name))
    return rows


def _class_row(counted: Statistics, levels: list[Level], code: int, name: str) -> ClassRow:
    masks, scores = int(counted.masks[code]), counted.score[code]
    scored = int(scores.sum())
    below = np.append(0, np.cumsum(scores))
    edges = [int(np.searchsorted(SCORE.edges, level.limit)) for level in levels]
    return ClassRow(
        name=cut(name),
        masks=masks,
        images=int(counted.images[code]),
        score=Scores(
            float(counted.score_sum[code]) / scored if scored else None,
            *(SCORE.quantile(scores, share) for share in (0.1, 0.5, 0.9)),
        ),
        area_mean=float(counted.area_sum[code]) / masks,
        area_p50=AREA.quantile(counted.area[code], 0.5),
        dropped=[int(below[edge]) for edge in edges],
    )


def _times(commits: Iterable[Commit]) -> Times:
    commits = list(commits)
    seconds = sum((commit.seconds for commit in commits), 0.0)
    samples = sum(commit.samples for commit in commits)
    stages = {
        stage: sum((commit.stages.get(stage, 0.0) for commit in commits), 0.0)
        for stage in STAGES
        if any(stage in commit.stages for commit in commits)
    }
    slowest = sorted(commits, key=lambda commit: (-commit.seconds, commit.shard))[:SLOWEST]
    return Times(
        seconds=seconds,
        stages=stages,
        images_per_second=samples / seconds if seconds else None,
        slowest=[
            {
                "shard": commit.shard,
                "samples": commit.samples,
                "seconds": commit.seconds,
                "attempt": commit.attempt,
            }
            for commit in slowest
        ],
    )
