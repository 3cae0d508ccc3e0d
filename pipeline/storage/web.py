"""Files on web servers, which can be read and asked about, and no more."""

from __future__ import annotations

from email.message import Message
from http.client import HTTPResponse
from typing import cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE = 60.0
"""Seconds that a server may say nothing."""


def open_read(location: str) -> HTTPResponse:
    """A binary stream over the file.

    Raises:
        OSError: the file does not exist or cannot be reached.
    """
    return cast(HTTPResponse, urlopen(location, timeout=PATIENCE))


def headers(location: str) -> Message | None:
    """What the server says of a file; None where there is none.

    Raises:
        OSError: the server does not answer, or refuses to.
    """
    try:
        with urlopen(Request(location, method="HEAD"), timeout=PATIENCE) as response:
            return cast(Message, response.headers)
    except HTTPError as error:
        if error.code in (404, 410):
            return None
        raise


def size(about: Message) -> int:
    """Bytes of the file that some headers are about; 0 where they do not say."""
    return int(about.get("Content-Length", 0))


def version(about: Message) -> str:
    """What its headers say about the state of a file: as much as there is of size, date and tag."""
    said = {name: about[name] for name in ("Content-Length", "Last-Modified", "ETag")}
    return ", ".join(f"{name}: {value}" for name, value in said.items() if value)
