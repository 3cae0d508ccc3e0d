"""Every sample once an epoch, in an order that can be had again, and gone on with."""

import itertools
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.loading import MaskDataset, collate
from pipeline.loading.order import Part, shards_of_part, shuffled
from pipeline.outputs.selection import SelectionConfig
from tests.pipeline.loading.conftest import Run

BATCH = 2
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # few cores


def make(run: Run, **settings: Any) -> MaskDataset:
    return MaskDataset(run.images, run.output, **({"shuffle_buffer": 4} | settings))


def load(dataset: MaskDataset, workers: int, **settings: Any) -> Any:
    return DataLoader(
        dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate, **settings
    )


def keys(batches: Iterable[Any]) -> list[list[str]]:
    return [[target["key"] for target in targets] for _, targets in batches]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long), 2, 4])
def test_workers_and_ranks_together_see_every_sample_once(finished: Run, workers: int) -> None:
    for epoch in (0, 3):
        seen: list[str] = []
        for rank in (0, 1):
            dataset = make(finished, rank=rank, ranks=2)
            dataset.set_epoch(epoch)
            part = list(itertools.chain(*keys(load(dataset, workers))))
            assert part, "both ranks have work"
            seen += part
        assert sorted(seen) == sorted(finished.usable)


@given(st.integers(0, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_parts_are_disjoint_and_whole(
    count: int, workers: int, ranks: int, epoch: int, shuffle: bool
) -> None:
    parts = [
        shards_of_part(count, Part(worker, workers, rank, ranks), 7, epoch, shuffle)
        for worker in range(workers)
        for rank in range(ranks)
    ]
    assert sorted(itertools.chain(*parts)) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(0, 40), st.integers(0, 50), st.integers(0, 5))
def test_a_buffer_gives_every_item_once_and_none_too_early(
    count: int, buffer: int, seed: int
) -> None:
    drawn = list(shuffled(range(count), buffer, random.Random(seed)))
    assert sorted(drawn) == list(range(count))
    assert all(item < place + max(buffer, 1) for place, item in enumerate(drawn))
    if buffer < 2:
        assert drawn == list(range(count))


def test_the_order_is_that_of_seed_and_epoch(finished: Run) -> None:
    def order(seed: int, epoch: int, **settings: Any) -> Any:
        dataset = make(finished, seed=seed, **settings)
        dataset.set_epoch(epoch)
        return keys(load(dataset, 0))

    assert order(0, 0) == order(0, 0)
    assert len({json.dumps(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    plain = [*itertools.chain(*order(0, 5, shuffle_buffer=0))]
    assert plain == finished.usable


def test_a_buffer_mixes_samples_of_several_shards(finished: Run) -> None:
    drawn = [key for batch in keys(load(make(finished, shuffle_buffer=12), 0)) for key in batch]
    shards = [key.partition("-")[0] for key in drawn]
    changes = sum(one != other for one, other in itertools.pairwise(shards))
    assert changes > 10, "more than the six of shards one after another"


@pytest.mark.parametrize(
    ("workers", "buffer"),
    [
        (0, 6),
        (3, 6),
        *(
            pytest.param(workers, buffer, marks=pytest.mark.long)
            for workers, buffer in ((0, 0), (2, 0), (3, 0), (2, 6))
        ),
    ],
)
def test_a_resumed_epoch_equals_an_undisturbed_one(
    finished: Run, workers: int, buffer: int
) -> None:
    settings: Any = {"shuffle_buffer": buffer, "select": SelectionConfig(top_k=2)}
    whole = make(finished, **settings)
    whole.set_epoch(2)
    expected = keys(load(whole, workers))
    for stop in (1, len(expected) - 3):
        interrupted = make(finished, **settings)
        interrupted.set_epoch(2)
        batches = interrupted.tracked(load(interrupted, workers))
        begun = keys(itertools.islice(batches, stop))
        state = json.loads(json.dumps(interrupted.state_dict()))
        batches.close()
        resumed = make(finished, **settings)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        again = resumed.tracked(load(resumed, workers))
        middle = keys(itertools.islice(again, 1))
        later = json.loads(json.dumps(resumed.state_dict()))
        again.close()
        assert begun + middle == expected[: stop + 1]
        last = make(finished, **settings)
        last.load_state_dict(later)
        assert keys(load(last, workers)) == expected[stop + 1 :]
        last.set_epoch(2)
        assert keys(load(last, workers)) == expected


def test_shards_of_which_all_was_given_are_not_opened_again(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make(finished, shuffle_buffer=0)
    samples = iter(dataset)
    for _ in range(8):
        next(samples)
    state = dataset.state_dict()
    resumed = make(finished, shuffle_buffer=0)
    resumed.load_state_dict(state)
    opened: list[str] = []
    read = storage.open_read

    def note(location: str) -> Any:
        opened.append(location.rpartition("/")[2])
        return read(location)

    monkeypatch.setattr("pipeline.loading.stream.storage.open_read", note)
    _, target = next(iter(resumed))
    assert target["key"] == finished.usable[8]
    assert [name for name in opened if name.endswith(".tar")] == ["1.tar"]


def test_set_epoch_reaches_persistent_workers_and_a_state_that_comes_too_late_is_refused(
    finished: Run,
) -> None:
    dataset = make(finished)
    loader = load(dataset, 1, persistent_workers=True)
    first = keys(loader)
    state = dataset_state(dataset, loader)
    dataset.set_epoch(1)
    assert keys(loader) != first
    dataset.set_epoch(0)
    assert keys(loader) == first
    dataset.load_state_dict(state)
    with pytest.raises(ConfigError, match="make a new DataLoader"):
        keys(loader)


def dataset_state(dataset: MaskDataset, loader: Any) -> Any:
    batches = dataset.tracked(loader)
    next(batches)
    state = dataset.state_dict()
    list(batches)
    return state


def test_a_state_of_workers_that_read_ahead_is_refused_unless_batches_are_tracked(
    finished: Run,
) -> None:
    dataset = make(finished)
    next(iter(load(dataset, 1)))
    with pytest.raises(ConfigError, match=r"tracked\(loader\)"):
        dataset.state_dict()


def test_a_state_of_something_else_is_one_line(finished: Run) -> None:
    dataset = make(finished, rank=0, ranks=2)
    next(iter(dataset))
    state = dataset.state_dict()
    for other, message in (
        (make(finished, rank=0, ranks=2, seed=1), "other shards, filters, seed"),
        (make(finished, rank=1, ranks=2), "rank 0, and this is 1"),
        (make(finished, rank=0, ranks=3), "ranks 2, and this is 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            other.load_state_dict(state)
    again = make(finished, rank=0, ranks=2)
    again.load_state_dict(state)
    with pytest.raises(ConfigError, match="num_workers=1, and this one has 2"):
        keys(load(again, 2))


def test_torchruns_rank_is_taken(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert keys(load(make(finished), 0)) == keys(load(make(finished, rank=1, ranks=2), 0))
