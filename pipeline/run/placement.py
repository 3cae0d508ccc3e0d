"""What a worker needs of a node, which nodes have it, and what is missing where none has.

Ray places workers by itself. This says beforehand how many could be placed, and, to people, why
some are not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import ExecutionConfig
from pipeline.config.groups import NODE_ID
from pipeline.errors import ConfigError

SHOWN = 3
"""Values of a label, in a line."""
SLACK = 1e-6
"""Of shares of GPUs and CPUs that are added up; Ray counts in 1/10,000."""


@dataclass(frozen=True)
class Needs:
    """What a worker needs of the node that it is put on.

    Attributes:
        gpus: GPUs; a share of one where it is below 1.
        cpus: CPUs that are set aside for it.
        labels: of the node, by name: a value, `!value`, `in(a, b)` or `!in(a, b)`.
    """

    gpus: float
    cpus: float
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: ExecutionConfig, on_gpu: bool) -> Needs:
        """What the settings ask for."""
        return cls(engine.gpus_per_worker if on_gpu else 0.0, engine.cpus_per_worker, engine.labels)

    def options(self, left_out: Collection[str] = ()) -> dict[str, Any]:
        """As Ray wants them for an actor.

        Args:
            left_out: ids of nodes that are not to be taken.
        """
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        selector = dict(self.labels)
        if left_out:
            selector[NODE_ID] = f"!in({','.join(left_out)})"
        return options | ({"label_selector": selector} if selector else {})

    def room(self, node: Mapping[str, Any]) -> int:
        """How many workers a node can hold, if it holds nothing else.

        Args:
            node: as `ray.nodes()` has it.
        """
        if not node["Alive"] or not self.has_labels(node):
            return 0
        resources = node["Resources"]
        rooms = [_holds(resources.get("CPU", 0.0), self.cpus)] if self.cpus else []
        if self.gpus:
            gpus = resources.get("GPU", 0.0)
            # A share is of one GPU: three workers that need 0.4 each are too many for one.
            per_gpu = _holds(1.0, self.gpus) if self.gpus < 1 else 0
            rooms.append(int(gpus) * per_gpu if per_gpu else _holds(gpus, self.gpus))
        return min(rooms, default=1)

    def has_labels(self, node: Mapping[str, Any]) -> bool:
        """Whether a node has the labels that are wanted."""
        labels = node.get("Labels", {})
        return all(matches(labels.get(name), wanted) for name, wanted in self.labels.items())

    def missing(self, nodes: Iterable[Mapping[str, Any]]) -> str:
        """Why workers find no room on these nodes, in words."""
        alive = [node for node in nodes if node["Alive"]]
        labelled = [node for node in alive if self.has_labels(node)]
        if not labelled:
            return f"no node of {len(alive)} has {_labels(self.labels)}{self._there(alive)}"
        able = [node for node in labelled if self.room(node)]
        of = f"no node of {len(labelled)}" + (" with these labels" if self.labels else "")
        if not able:
            most = max(node["Resources"].get("GPU", 0.0) for node in labelled)
            cpus = max(node["Resources"].get("CPU", 0.0) for node in labelled)
            return f"{of} has that much: {most:g} GPU and {cpus:g} CPU at the most"
        in_all = sum(self.room(node) for node in able)
        return f"there is room for {in_all:,} of them: they are starting, or others have it"

    def _there(self, nodes: Sequence[Mapping[str, Any]]) -> str:
        """What the wanted labels are on the nodes that there are."""
        for name in self.labels:
            values = sorted({node.get("Labels", {}).get(name, "") for node in nodes} - {""})
            if values and not any(matches(value, self.labels[name]) for value in values):
                more = ", …" * (len(values) > SHOWN)
                return f"; {name} is {', '.join(values[:SHOWN])}{more}"
        return ""

    def __str__(self) -> str:
        words = [_amount(self.gpus, "GPU")] if self.gpus else []
        if not self.gpus or self.cpus != 1:
            words.append(_amount(self.cpus, "CPU") if self.cpus else "no CPU")
        on = f" on a node with {_labels(self.labels)}" if self.labels else ""
        return " and ".join(words) + on


def choose(engine: ExecutionConfig, nodes: Sequence[Mapping[str, Any]]) -> Needs:
    """What each worker needs: a GPU too, where the settings leave that open and there is one now.

    Args:
        engine: what the settings ask for.
        nodes: of the cluster, as `ray.nodes()` has them.

    Raises:
        ConfigError: no node has the labels, so that there is none to tell what it has.
    """
    on_gpu, on_cpu = (Needs.of(engine, on_gpu=each) for each in (True, False))
    if engine.device != "auto":
        return on_gpu if engine.device.startswith("cuda") else on_cpu
    there = [node for node in nodes if node["Alive"] and on_cpu.has_labels(node)]
    if not there:
        raise ConfigError(
            f"--engine.labels {dict(engine.labels)}: {on_cpu.missing(nodes)}; say with "
            "--engine.device, cuda or cpu, what the nodes have that are to come"
        )
    return on_gpu if any(node["Resources"].get("GPU", 0.0) for node in there) else on_cpu


def matches(value: str | None, wanted: str) -> bool:
    """Whether a label is what a selector of Ray asks for.

    Args:
        value: of the node's label; None where it has none of that name.
        wanted: a value, `!value`, `in(a, b)` or `!in(a, b)`. What is not wanted is not there
            either where there is no such label.
    """
    positive = wanted.removeprefix("!")
    if positive.startswith("in(") and positive.endswith(")"):
        among = {each.strip() for each in positive[3:-1].split(",")}
    else:
        among = {positive}
    return (value in among) != wanted.startswith("!")


def _holds(amount: float, each: float) -> int:
    return math.floor(amount / each + SLACK)


def _amount(number: float, what: str) -> str:
    if number == 1:
        return f"a {what}"
    return f"{number:g} {what}s" if number > 1 else f"{number:g} of a {what}"


def _labels(labels: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {value}" for name, value in labels.items())
