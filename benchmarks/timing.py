"""Medians, ratios, interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

Figures: TypeAlias = Mapping[str, float]
Action: TypeAlias = Callable[[], Figures]


@dataclass(frozen=True)
class Target:
    """A measured figure beside what it should be."""

    name: str
    measured: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def as_dict(self) -> dict[str, str | float | bool]:
        """For JSON."""
        sign = "≥" if self.at_least else "≤"
        return {
            "name": self.name,
            "target": f"{sign} {self.limit:g}",
            "measured": self.measured,
            "met": self.met,
        }


def interleaved(actions: Mapping[str, Action], rounds: int) -> dict[str, dict[str, float]]:
    """Medians of what each action measures. They take turns, so that noise hits them all.

    Args:
        actions: each runs once and returns figures by name.
        rounds: how often each is measured.
    """
    return medians(take_turns(actions, rounds))


def take_turns(actions: Mapping[str, Action], rounds: int) -> dict[str, list[Figures]]:
    """What each action measures in each round."""
    at_least_one(rounds=rounds)
    measured: dict[str, list[Figures]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            measured[name].append(action())
    return measured


def at_least_one(**counts: int) -> None:
    """Refuse to measure nothing.

    Raises:
        ValueError: one of the counts is not positive.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: at least one is needed")


def medians(measured: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, float]]:
    """The median of each figure of each action."""
    return {
        name: {figure: median(turn[figure] for turn in turns) for figure in turns[0]}
        for name, turns in measured.items()
    }


def extra_prompt(one: float, several: float, *, more: int, forward: float) -> float:
    """What each further prompt costs, as a fraction of a bare forward pass.

    Args:
        one: seconds for one prompt.
        several: seconds for `more` prompts more than that.
        more: how many more.
        forward: seconds of the bare forward pass.
    """
    return (several - one) / more / forward


def target_table(targets: Sequence[Mapping[str, Any]]) -> str:
    """What was promised, what was measured, and whether that is good enough, as Markdown."""
    checks = [
        [t["name"], t["target"], f"{t['measured']:.3g}", "yes" if t["met"] else "NO"]
        for t in targets
    ]
    return table(["target", "", "measured", "met"], checks)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
