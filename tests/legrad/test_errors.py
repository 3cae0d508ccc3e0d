"""Hints at names that may be meant."""

import pytest

from legrad.errors import near


@pytest.mark.parametrize(
    ("most", "hint"),
    [(1, " (did you mean batch_size?)"), (2, " (did you mean batch_size or batch_sizes?)")],
)
def test_the_nearest_names_are_proposed(most: int, hint: str) -> None:
    assert near("batchsize", ["device", "batch_sizes", "batch_size"], most) == hint


def test_no_name_is_proposed_where_none_is_near() -> None:
    assert near("batchsize", ["device", "layers"]) == ""
