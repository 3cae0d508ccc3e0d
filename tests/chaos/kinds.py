"""Kinds of faults: each a function that makes one happen to a case and says what must follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.cases import Case

Happens = Callable[[Case], None]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: what happens.
        happens: makes it happen to a case, and asserts what must follow.
        row: of the table "what is wrong today" of the issue that it is about; empty for none.
        repeats: how often it is done in a full run, where that is not as often as all others.
        on_ray: whether the shared cluster is needed.
    """

    name: str
    happens: Happens
    row: str = ""
    repeats: int | None = None
    on_ray: bool = False


class Skipped(Exception):
    """This machine cannot have such a fault; the message says why."""


KINDS: dict[str, Kind] = {}


def kind(
    name: str, row: str = "", repeats: int | None = None, on_ray: bool = False
) -> Callable[[Happens], Happens]:
    """Register a kind."""

    def register(happens: Happens) -> Happens:
        assert name not in KINDS
        KINDS[name] = Kind(name, happens, row, repeats, on_ray)
        return happens

    return register
