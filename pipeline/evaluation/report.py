"""Writing results: metrics.json for programs, metrics.md and plots for people."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.evaluation.counting import Merged

matplotlib.use("Agg")

Series = Mapping[str, tuple[Sequence[float | int], Sequence[float | int]]]
"""Name → x and y of a line."""
PANELS_ACROSS = 5


def header(merged: Merged) -> dict[str, Any]:
    """What every metrics.json says about its making."""
    return {
        "fingerprint": merged.fingerprint,
        "settings": merged.identity,
        "images": merged.samples,
        "rejected": merged.rejects,
        "missing_shards": merged.missing,
    } | ({"run": asdict(merged.gaps)} if merged.gaps else {})


def check_scored(merged: Merged, where: str) -> None:
    """See that anything could be scored.

    Args:
        merged: the counts.
        where: the data are, as people say it.

    Raises:
        ConfigError: with what was wrong with all that was there.
    """
    if not merged.table.num_rows:
        raise ConfigError(
            f"{where}: no image could be scored ({in_words(merged.rejects)}; the log of the run "
            "that counted them names them; files that are there by now are looked for with another "
            "--output)"
        )


def gap_notes(merged: Merged) -> list[str]:
    """What the scores do not cover: shards without counts, and gaps in the run that is scored."""
    missing = merged.missing
    own = [f"Shards without counts: {', '.join(missing)}."] if missing else []
    return own + (merged.gaps.notes() if merged.gaps else [])


def in_words(counts: Mapping[str, int]) -> str:
    """Counts by name: "192 scored, 3 rejected"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def write_json(output: str, content: Mapping[str, Any]) -> None:
    """Write metrics.json; a number that does not exist becomes null."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(storage.join(output, "metrics.json"), text.encode() + b"\n")


def write_markdown(output: str, title: str, parts: Iterable[str], name: str = "metrics.md") -> None:
    """Write a page."""
    text = "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"
    storage.write_bytes(storage.join(output, name), text.encode())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats with two digits."""
    lines = [_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]
    return "\n".join(lines)


def bullet(notes: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {note}" for note in notes)


def figure(width: float = 7.0, height: float = 4.5) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save(output: str, name: str, drawn: Figure) -> None:
    """Write a figure as PNG."""
    data = io.BytesIO()
    drawn.savefig(data, format="png", dpi=110)
    storage.write_bytes(storage.join(output, name), data.getvalue())


def plot_lines(output: str, name: str, series: Series, x_label: str, y_label: str) -> None:
    """Write a plot of lines."""
    drawn = figure()
    axes = drawn.add_subplot()
    for label, (x, y) in series.items():
        axes.plot(x, y, marker="o", markersize=3, label=label)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend()
    save(output, name, drawn)


def plot_bars(output: str, name: str, values: Mapping[str, float], label: str) -> None:
    """Write a plot of horizontal bars, first on top."""
    drawn = figure(height=1 + 0.22 * len(values))
    axes = drawn.add_subplot()
    axes.barh(list(values), list(values.values()))
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.grid(alpha=0.3, axis="x")
    save(output, name, drawn)


def plot_panels(
    output: str, name: str, panels: Mapping[str, Sequence[float]], x_label: str, y_label: str
) -> None:
    """Write a small plot of bars, 1, 2, … on the x axis, for each name."""
    rows = -(-len(panels) // PANELS_ACROSS)
    drawn = figure(2.2 * PANELS_ACROSS, 1.7 * rows + 0.3)
    grid = drawn.subplots(rows, PANELS_ACROSS, squeeze=False, sharex=True, sharey=True).flatten()
    for position, (title, values) in enumerate(panels.items()):
        axes = grid[position]
        axes.bar(range(1, len(values) + 1), values, width=0.9)
        axes.set_title(title, fontsize=8)
        lowest = position + PANELS_ACROSS >= len(panels)
        axes.tick_params(labelsize=7, labelbottom=lowest)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    drawn.supxlabel(x_label, fontsize=9)
    drawn.supylabel(y_label, fontsize=9)
    save(output, name, drawn)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value
