"""How many names a pattern stands for."""

import pytest
from braceexpand import braceexpand

from pipeline.inputs.patterns import count_names


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "{a}", "a,b", "a}", "{}", "{,}", "{0..0}", "{3..1}", "{-5..05}", "{0..10..3}"),
        *("{9..0..-2}", "{0..5..0}", "{a..z}", "{Z..A}", "{a..k..2}", "{0..9}{a,b}{0..4}"),
        *("x{0..3,7}", "{{0..9},{20..24}}", "{a{0..9},b,{c,d}{e,f}}", r"\{0..9}", r"{a\,b,c}"),
    ],
)
def test_names_are_counted_as_they_are_spelled_out(pattern: str) -> None:
    try:
        expected = len(list(braceexpand(pattern)))
    except ValueError:  # one is never closed
        expected = 1
    assert count_names(pattern) == expected
