"""Histograms as drawings: where the bars stand, and what is written below them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.report.contents import Histogram

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 16, 22
"""Space around the bars."""
MOST_BARS = 40
TICKS = 5
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
    for place, count in enumerate(counts):
        height = round(room * count / most, 2) if most else 0.0
        drawn.append(
            Bar(
                x=round(LEFT + place * step, 2),
                y=round(TOP + room - height, 2),
                width=round(max(step - 1, step * 0.7), 2),
                height=height,
                low=show(edges[place]),
                high=show(edges[place + 1] - 1 if whole else edges[place + 1]),
                count=count,
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
    """Edges and counts of equal groups of bins, as few as a chart has room for."""
    bins, size = len(counted.counts), 1
    for exponent in range(math.ceil(math.log10(max(bins, 1))) + 1):
        size = next((s * 10**exponent for s in STEPS if bins <= MOST_BARS * s * 10**exponent), size)
        if bins <= MOST_BARS * size:
            break
    edges = [counted.edges[min(at, bins)] for at in range(0, bins + size, size)] if bins else []
    counts = [sum(counted.counts[at : at + size]) for at in range(0, bins, size)]
    return edges, counts


def _ticks(bars: list[Bar], step: float, whole: bool) -> list[Tick]:
    """Some edges between bars; of whole numbers, the numbers themselves below their bars."""
    if not bars:
        return []
    every = max(1, math.ceil(len(bars) / TICKS))
    if whole:
        return [
            Tick(round(bar.x + step / 2, 2), bar.low, "middle") for bar in bars[:: max(1, every)]
        ]
    marks = [(bar.x, bar.low) for bar in bars[::every]]
    end = (bars[-1].x + step, bars[-1].high)
    if len(bars) % every == 0 or len(marks) == 1:
        marks.append(end)
    elif end[0] - marks[-1][0] > (WIDTH - LEFT - RIGHT) / TICKS * 0.7:
        marks.append(end)
    anchors = ["start"] + ["middle"] * (len(marks) - 2) + ["end" if marks[-1] == end else "middle"]
    return [
        Tick(round(x, 2), text, anchor) for (x, text), anchor in zip(marks, anchors, strict=True)
    ]


def _summary(counted: Histogram, show: Callable[[float], str]) -> str:
    if counted.p10 is None or counted.p50 is None or counted.p90 is None:
        return "Nothing was counted."
    return (
        f"Median {show(counted.p50)}; 80 % lie between {show(counted.p10)} and {show(counted.p90)}."
    )
