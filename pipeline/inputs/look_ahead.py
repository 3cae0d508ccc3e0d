"""Work that is done before it is wanted, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """`function` of every item, in their order, computed up to `ahead` items before it is wanted.

    What `items` or `function` raises comes after the results of all items before.
    """
    pending: deque[Future[Result]] = deque()
    source = iter(items)
    error: Exception | None = None
    while True:
        try:
            item = next(source)
        except StopIteration:
            break
        except Exception as caught:
            error = caught
            break
        pending.append(pool.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
    if error is not None:
        raise error
