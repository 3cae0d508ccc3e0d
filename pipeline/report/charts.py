"""Histograms as drawings: where the bars stand, and what is written below them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from pipeline.report.contents import Histogram

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 16, 22
"""Space around the bars."""
MOST_BARS = 40
APART = 80
"""Between the numbers below the bars, at least."""
STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Bar:
    """A bar, in the units of the drawing, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    low: str
    high: str
    count: int


@dataclass(frozen=True)
class Tick:
    """A number below the bars, and which of its points stands at x: start, middle or end."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """A histogram to draw.

    Attributes:
        name: distinct in the page.
        title: what is counted by what.
        caption: what it means, and what to do with it.
        summary: its quantiles in a sentence.
        bars: from left to right.
        ticks: below them.
        most: height of the highest bar, as a count.
    """

    name: str
    title: str
    caption: str
    summary: str
    bars: list[Bar]
    ticks: list[Tick]
    most: int


def draw_histogram(
    name: str,
    title: str,
    caption: str,
    counted: Histogram,
    show: Callable[[float], str],
    whole: bool = False,
) -> Chart:
    """Lay a histogram out, with neighbouring bins put together until few enough are left.

    Args:
        name: distinct in the page.
        title: of the chart.
        caption: below it.
        counted: the bins.
        show: writes a number of its axis.
        whole: its bins are whole numbers, written alone.
    """
    edges, counts = _merged(counted)
    most, bars = max(counts, default=0), len(counts)
    step = (WIDTH - LEFT - RIGHT) / max(bars, 1)
    room = HEIGHT - TOP - BOTTOM
    drawn = []
    for place, number in enumerate(counts):
        height = round(room * number / most, 2) if most else 0.0
        drawn.append(
            Bar(
                x=round(LEFT + place * step, 2),
                y=round(TOP + room - height, 2),
                width=round(max(step - 1, step * 0.7), 2),
                height=height,
                low=show(edges[place]),
                high=show(edges[place + 1] - 1 if whole else edges[place + 1]),
                count=number,
            )
        )
    return Chart(
        name=name,
        title=title,
        caption=caption,
        summary=_summary(counted, show),
        bars=drawn,
        ticks=_ticks(drawn, step, whole),
        most=most,
    )


def _merged(counted: Histogram) -> tuple[list[float], list[int]]:
    """Edges and counts of equal groups of bins, as few as a chart has room for.

    Groups begin at multiples of their size, so that their edges are round numbers.
    """
    bins = len(counted.counts)
    if not bins:
        return [], []
    sizes = (step * 10**exponent for exponent in count() for step in STEPS)
    size = next(size for size in sizes if bins + counted.first_bin % size <= MOST_BARS * size)
    groups: list[list[int]] = []
    for at, number in enumerate(counted.counts, start=counted.first_bin):
        if not groups or at % size == 0:
            groups.append([])
        groups[-1].append(number)
    starts = [max(0, place * size - counted.first_bin % size) for place in range(len(groups))]
    return [counted.edges[at] for at in [*starts, bins]], [sum(group) for group in groups]


def _ticks(bars: list[Bar], step: float, whole: bool) -> list[Tick]:
    """Some edges between bars; of whole numbers, the numbers themselves below their bars."""
    every = max(1, math.ceil(APART / step))
    if whole:
        return [Tick(round(bar.x + step / 2, 2), bar.low, "middle") for bar in bars[::every]]
    marks = [Tick(bar.x, bar.low, "middle" if bar.x > LEFT else "start") for bar in bars[::every]]
    if bars and (len(bars) - 1) % every * step >= APART * 0.7:
        marks.append(Tick(float(WIDTH - RIGHT), bars[-1].high, "end"))
    return marks


def _summary(counted: Histogram, show: Callable[[float], str]) -> str:
    if counted.p10 is None or counted.p50 is None or counted.p90 is None:
        return "Nothing was counted."
    return (
        f"Median {show(counted.p50)}; 80 % lie between {show(counted.p10)} and {show(counted.p90)}."
    )
