"""Plans: every pair once, regular, and within the budget."""

import hypothesis.strategies as st
import torch
from hypothesis import given

from legrad.engines.chunks import Chunk, plan

CPU = torch.device("cpu")


def images_of(chunk: Chunk) -> list[int]:
    return torch.arange(100)[chunk.images].tolist()


@given(
    pairs=st.lists(st.integers(0, 9), max_size=40),
    budget=st.integers(1, 60),
    image_bytes=st.integers(0, 8),
    pair_bytes=st.integers(1, 8),
)
def test_every_pair_once_and_within_the_budget(
    pairs: list[int], budget: int, image_bytes: int, pair_bytes: int
) -> None:
    seen = []
    for chunk in plan(pairs, image_bytes, pair_bytes, budget, CPU):
        images, texts = chunk.queries.shape
        single = images == texts == 1
        assert single or images * (image_bytes + texts * pair_bytes) <= budget
        for image, queries in zip(images_of(chunk), chunk.queries.tolist(), strict=True):
            assert [pairs[query] for query in queries] == [image] * texts
            seen += queries
    assert sorted(seen) == list(range(len(pairs)))


def test_images_with_as_many_texts_go_together() -> None:
    chunks = plan([5, 2, 5, 3, 2, 0], 1, 1, 1000, CPU)
    assert [(images_of(c), c.queries.tolist()) for c in chunks] == [
        ([0, 3], [[5], [3]]),
        ([2, 5], [[1, 4], [0, 2]]),
    ]


def test_consecutive_images_are_a_slice() -> None:
    (chunk,) = plan([3, 1, 2], 1, 1, 1000, CPU)
    values = torch.arange(10)
    assert chunk.images == slice(1, 4)
    assert chunk.of_images(values).data_ptr() == values[1:].data_ptr()


def test_many_texts_of_one_image_are_split_evenly() -> None:
    chunks = plan([0] * 9, 2, 1, 6, CPU)
    assert [c.queries.shape for c in chunks] == [(1, 3)] * 3
