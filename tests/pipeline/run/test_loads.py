"""Where the model loads, and what is done about a node where it does not."""

from __future__ import annotations

import pytest

from pipeline.errors import ModelError, StorageError
from pipeline.run.loads import LONGEST_PAUSE, MOST_FAILURES, MOST_LOSSES, Loads


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def loads(said: list[str], clock: list[float]) -> Loads:
    return Loads(600.0, said.append, lambda: clock[0])


def test_a_worker_that_says_why_ends_a_run_that_has_no_other(loads: Loads) -> None:
    with pytest.raises(ModelError, match="no such weights"):
        loads.failed("a", "host", "no such weights", died=False, others=False)


def test_deaths_are_tried_again_a_few_times(loads: Loads, said: list[str]) -> None:
    for _ in range(MOST_FAILURES - 1):
        loads.failed("a", "host", "it died", died=True, others=False)
    assert loads.may_start(loading=False)
    with pytest.raises(ModelError, match=f"did not load, {MOST_FAILURES} times: it died"):
        loads.failed("a", "host", "it died", died=True, others=False)
    assert said == [f"the model did not load on host, time {time}: it died" for time in (1, 2)]


def test_while_others_try_nobody_is_replaced_and_the_last_one_decides(loads: Loads) -> None:
    for node in "abc":
        loads.failed(node, node, f"no such weights on {node}", died=False, others=True)
    assert not loads.may_start(loading=True) and loads.may_start(loading=False)
    with pytest.raises(ModelError, match="no such weights on a"):
        loads.failed("d", "d", "it died", died=True, others=False)


def test_one_node_does_not_decide_while_others_wait_for_room(loads: Loads) -> None:
    for _ in range(MOST_FAILURES - 1):
        loads.failed("bad", "host", "no disk", died=False, others=False, waiting=True)
    assert loads.may_start(loading=False) and loads.left_out == {}
    loads.failed("bad", "host", "no disk", died=False, others=False, waiting=True)
    assert loads.left_out == {"bad": "no disk"}
    with pytest.raises(ModelError, match="no disk"):
        loads.failed("other", "other", "no disk", died=False, others=False, waiting=True)


def test_a_node_is_left_out_where_others_load(loads: Loads, said: list[str]) -> None:
    loads.failed("bad", "host", "no disk", died=False, others=True)
    loads.succeeded("good")
    assert loads.may_start(loading=True)
    for _ in range(MOST_FAILURES - 1):
        assert loads.left_out == {}
        loads.failed("bad", "host", "no disk", died=False, others=False)
    assert loads.left_out == {"bad": "no disk"}
    assert said[-1] == "left out: host, where the model does not load: no disk"


def test_a_success_forgives_the_node(loads: Loads) -> None:
    for _ in range(3 * MOST_FAILURES):
        loads.failed("a", "host", "it died", died=True, others=True)
        loads.succeeded("a")
    assert loads.left_out == {}


def test_workers_that_are_lost_without_a_shard_are_told_and_have_a_bound(
    loads: Loads, said: list[str]
) -> None:
    for _ in range(3):
        for _ in range(MOST_LOSSES - 1):
            loads.lost("lost: a worker")
        loads.succeeded("a")
    assert len(said) == 3 * (MOST_LOSSES - 1) and loads.left_out == {}
    with pytest.raises(ModelError, match=f"{MOST_LOSSES} workers were lost in a row, .* gone"):
        for _ in range(MOST_LOSSES):
            loads.lost("gone")


def test_a_storage_that_is_away_while_a_model_loads_is_nobodys_fault(
    loads: Loads, said: list[str], clock: list[float]
) -> None:
    began = clock[0]
    with pytest.raises(StorageError, match="no worker could load its model: 503"):
        while True:
            assert loads.may_start(loading=False)
            loads.not_available("host", "503")
            assert not loads.may_start(loading=False)
            clock[0] += LONGEST_PAUSE
    assert clock[0] - began == 600 and loads.left_out == {} and "tried again in 1 s" in said[0]
    loads.succeeded("a")
    loads.not_available("host", "503")
    assert said[-1].endswith("tried again in 1 s")
