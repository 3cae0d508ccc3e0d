"""Work done ahead keeps its order, its bounds and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.look_ahead import map_ahead


@given(st.integers(0, 12), st.integers(0, 5), st.integers(1, 3))
def test_results_come_in_the_order_of_the_items(count: int, ahead: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        assert list(map_ahead(pool, lambda n: n * n, range(count), ahead)) == [
            n * n for n in range(count)
        ]


def test_no_more_items_are_taken_than_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda n: n, items(), ahead=3)
        assert next(results) == 0
        assert taken == [0, 1, 2, 3]


def test_an_error_of_the_items_comes_after_all_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("cut short")

    seen = []
    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="cut short"):
        for result in map_ahead(pool, lambda n: n, items(), ahead=3):
            seen.append(result)
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_of_the_function_comes_in_its_place() -> None:
    seen = []
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        for result in map_ahead(pool, lambda n: 1 / (2 - n), range(5), ahead=3):
            seen.append(result)
    assert seen == [0.5, 1]
