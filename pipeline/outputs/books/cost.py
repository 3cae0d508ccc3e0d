"""What images have taken: hours of GPUs, and their price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MILLION = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What was done, and what it has taken.

    Attributes:
        images: that were done, rejected ones included.
        seconds: for which there were workers.
        hours: of every GPU (or worker) that was held, from its placement to its end: the time in
            which it loads a model or waits is paid for, too.
        unit: what they are of: "GPU", or "worker" where there is no GPU.
        money: for these hours, in the currency of --engine.price; None where some had no price.
        others: what was done with other units, one for each.
    """

    images: int = 0
    seconds: float = 0.0
    hours: float = 0.0
    unit: str = "GPU"
    money: float | None = None
    others: tuple[Cost, ...] = ()

    def plus(self, other: Cost) -> Cost:
        """Both together, each unit for itself; the other one's comes first, if it has any."""
        if not other.hours:
            return self
        of = {cost.unit: cost for cost in (self, *self.others) if cost.hours}
        for cost in (other, *other.others):
            alone = replace(cost, others=())
            of[cost.unit] = of[cost.unit]._and(alone) if cost.unit in of else alone
        first = of.pop(other.unit)
        return replace(first, others=tuple(replace(cost, others=()) for cost in of.values()))

    def _and(self, other: Cost) -> Cost:
        """Both together, of one unit."""
        known = self.money is not None and other.money is not None
        return Cost(
            self.images + other.images,
            self.seconds + other.seconds,
            self.hours + other.hours,
            self.unit,
            (self.money or 0.0) + (other.money or 0.0) if known else None,
        )

    @property
    def images_per_second(self) -> float | None:
        """Of all workers together; None before there is one of either."""
        return self.images / self.seconds if self.images and self.seconds else None

    def per_million(self, of: int | float | None) -> float | None:
        """Of hours or money, how much a million images take; None before there are images."""
        return None if of is None or not self.images else of / self.images * MILLION

    def record(self) -> dict[str, Any]:
        """As `summary.json` has it; empty where nothing was held."""
        if not self.hours:
            return {}
        return {
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "images_per_second": _rounded(self.images_per_second),
            "unit": self.unit,
            "hours": round(self.hours, 6),
            "hours_per_million_images": _rounded(self.per_million(self.hours)),
            "money": _rounded(self.money),
            "money_per_million_images": _rounded(self.per_million(self.money)),
            **({"others": [cost.record() for cost in self.others]} if self.others else {}),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Cost:
        """Back from `record`.

        Raises:
            KeyError: it has other fields.
        """
        if not record:
            return cls()
        names = ("images", "seconds", "hours", "unit", "money")
        alone = cls(*(record[name] for name in names))
        return replace(alone, others=tuple(map(cls.of, record.get("others", []))))


def spoken(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a record says, for people: name and value."""
    if not cost:
        return []
    unit, a_million = cost["unit"], cost["hours_per_million_images"]
    pace, money = cost["images_per_second"], cost["money"]
    hours = f"{cost['hours']:,.2f} for {cost['images']:,} images"
    lines = [(f"{unit}-hours", hours)]
    if pace is not None:
        lines.append(("images/s", f"{pace:,.4g}"))
    if a_million is not None:
        lines.append((f"{unit}-hours per million images", f"{a_million:,.4g}"))
    if money is not None:
        lines.append(("price", f"{money:,.2f}"))
    if (each := cost["money_per_million_images"]) is not None:
        lines.append(("price per million images", f"{each:,.2f}"))
    for other in cost.get("others", []):
        lines += [(f"{name}, {other['unit']}s", value) for name, value in spoken(other)]
    return lines


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
