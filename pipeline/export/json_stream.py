"""The elements of the lists in a JSON file of any size, one after the other."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from pipeline import storage

BLOCK = 1 << 20
LONGEST = 1 << 26
"""Characters of one value; what is longer is not closed."""
EXPONENT = 2
"""Characters that may follow a number without being one: e+."""
SPACES = " \t\r\n"


class Damaged(Exception):
    """The text is no JSON, or it ends too early."""


class Element(NamedTuple):
    """A value of a file.

    Attributes:
        section: key of the outermost object that it is below; empty where that is a list.
        position: in the list; None where the value is no list's element but the key's own.
        value: as `json.loads` would have it.
    """

    section: str
    position: int | None
    value: Any


def elements(location: str) -> Iterator[Element]:
    """The values of the outermost object, its lists taken apart, or the elements of a list.

    An empty list gives one element without an index, so that it is not taken for missing.

    Raises:
        Damaged: after the last element that could be read.
        OSError: the file cannot be read.
    """
    with storage.open_read(location) as stream:
        text = _Text(stream)
        first = text.peek()
        if first == "[":
            yield from _list(text, "")
        elif first == "{":
            yield from _object(text)
        else:
            raise Damaged("neither a JSON object nor a list")
        if text.peek():
            raise Damaged(f"something follows the end, at character {text.position()}")


def _object(text: _Text) -> Iterator[Element]:
    text.take("{")
    if text.peek() == "}":
        text.take("}")
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise Damaged(f"no key at character {text.position()}")
        text.take(":")
        if text.peek() == "[":
            yield from _list(text, key)
        else:
            yield Element(key, None, text.value())
        if text.take(",}") == "}":
            return


def _list(text: _Text, section: str) -> Iterator[Element]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        yield Element(section, None, [])
        return
    index = 0
    while True:
        yield Element(section, index, text.value())
        index += 1
        if text.take(",]") == "]":
            return


class _Text:
    """Characters of a stream, a block in memory at a time."""

    def __init__(self, stream: storage.Stream) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder(parse_constant=_no_constant).raw_decode
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    def position(self) -> int:
        return self._before + self._at

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in SPACES:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, expected: str) -> str:
        """The next character, which has to be one of those expected."""
        found = self.peek()
        if not found or found not in expected:
            seen = repr(found) if found else "the end"
            raise Damaged(f"{seen} instead of {' or '.join(expected)}, character {self.position()}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
                # A number near the end of the block may go on in the next one, as 1 does in 1e+5.
                if len(self._text) - end > EXPONENT or not self._more():
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LONGEST or not self._more():
                    place = self._before + error.pos
                    raise Damaged(f"{error.msg}, character {place}") from error

    def _more(self) -> bool:
        """Read on; False at the end. At least as much as is held, so that long values are fast."""
        held = self._text[self._at :]
        data = b"" if self._ended else self._stream.read(max(BLOCK, len(held)))
        self._ended = not data
        try:
            more = self._decode(data, self._ended)
        except UnicodeDecodeError as error:
            raise Damaged(f"not UTF-8 text: {error}") from error
        if not self._ended:
            self._text = held + more
            self._before += self._at
            self._at = 0
        return not self._ended


def _no_constant(name: str) -> NoReturn:
    raise Damaged(f"{name} is no number of JSON")
