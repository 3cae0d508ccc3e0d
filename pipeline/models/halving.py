"""Work that may not fit into a device's memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def halves(items: Sequence[Item]) -> list[list[Item]]:
    """The two halves of some items; empty for a single one."""
    middle = len(items) // 2
    return [list(items[:middle]), list(items[middle:])] if middle else []


def in_halves(
    items: Sequence[Item],
    do: Callable[[Sequence[Item]], Sequence[Result]],
    halve: Callable[[Sequence[Item]], list[list[Item]]],
    device: torch.device,
) -> list[tuple[Item, Result, bool]]:
    """A result for every item, from one call of `do`, or from several where memory is short.

    Args:
        items: to be done.
        do: a result for each of some items, in order.
        halve: the two halves of some items, which may split a single one too; empty where there is
            nothing left to halve.
        device: whose memory it is.

    Returns:
        Every item (or what `halve` made of it) with its result, and whether it was done in halves.

    Raises:
        torch.OutOfMemoryError: the memory does not suffice for what cannot be halved.
    """
    if not items:
        return []
    try:
        return [(item, result, False) for item, result in zip(items, do(items), strict=True)]
    except torch.OutOfMemoryError:
        parts = halve(items)
        if not parts:
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return [
        (item, result, True)
        for part in parts
        for item, result, _ in in_halves(part, do, halve, device)
    ]
