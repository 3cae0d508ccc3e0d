"""Overlapping work keeps its order, its bounds and its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.ordering import PriorityLock, map_ahead


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


def test_the_lowest_rank_goes_first_and_alone() -> None:
    turn, order, ready = PriorityLock(), list[tuple[int, ...]](), threading.Barrier(5)
    holders = 0

    def wait(rank: tuple[int, ...]) -> None:
        nonlocal holders
        ready.wait()
        with turn.take(rank):
            holders += 1
            assert holders == 1
            order.append(rank)
            holders -= 1

    ranks = [(1, 0), (0, 1), (2, 0), (0, 0)]
    with ThreadPoolExecutor(4) as pool:
        with turn.take((9, 9)):
            waiting = [pool.submit(wait, rank) for rank in ranks]
            ready.wait()
            while turn.waiting < len(ranks):
                time.sleep(0.001)
        for future in waiting:
            future.result()
    assert order == sorted(ranks)


def test_an_error_of_the_holder_passes_the_turn_on() -> None:
    turn = PriorityLock()
    with pytest.raises(KeyError), turn.take((0,)):
        raise KeyError
    with turn.take((1,)):
        pass


def test_who_waits_is_told_of_every_change_and_may_give_up() -> None:
    turn, told = PriorityLock(), []

    def give_up() -> None:
        told.append(turn.waiting)
        if len(told) > 1:
            raise TimeoutError

    def wait() -> None:
        with pytest.raises(TimeoutError), turn.take((1,), give_up):
            pass

    with ThreadPoolExecutor(1) as pool:
        with turn.take((0,)):
            waiting = pool.submit(wait)
            while not turn.waiting:
                time.sleep(0.001)
        waiting.result()
    assert (told, turn.waiting) == ([1, 1], 0)
    with turn.take((2,)):
        pass
