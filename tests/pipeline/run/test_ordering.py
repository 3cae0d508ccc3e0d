"""Who waits for the lock gets it in the order of priorities."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.run.ordering import PriorityLock


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
