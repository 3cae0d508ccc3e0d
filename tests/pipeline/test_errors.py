"""How errors become one line."""

import pytest

from pipeline.errors import ConfigError, naming, one_line, unwrapped


def test_an_error_is_told_by_its_first_line() -> None:
    error = RuntimeError("out of luck\nat line 7 of something.cpp")
    assert one_line(error) == "out of luck"
    assert one_line(error, kind=True) == "RuntimeError: out of luck"


def test_an_error_that_says_nothing_is_told_by_its_kind() -> None:
    assert one_line(AssertionError(), kind=True) == "AssertionError: "


def test_the_lines_of_a_text_can_be_put_into_one() -> None:
    assert unwrapped("while parsing\n   a list\n\n  in line 3") == "while parsing a list in line 3"


def test_a_setting_is_named_where_what_it_says_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match=r"^--classes x: not usable \(no such thing\)"):
        with naming("--classes x"):
            raise FileNotFoundError("no such thing")
