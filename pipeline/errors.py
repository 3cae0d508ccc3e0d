"""Every error that a user can see, and how it becomes one line."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A setting that cannot work; the message says which one and what to do."""


class TakenOver(ConfigError):
    """Another run, with other settings, has taken over the output: nothing may be written there."""


class ModelError(Exception):
    """The model or its weights do not load; the message says what was tried and why it failed."""


class ShardError(Exception):
    """A shard that cannot be read to its end; the message says what is wrong with it."""


class NotWritten(Exception):
    """The output cannot be written: no fault of the shard that was to be committed."""


class StorageError(Exception):
    """The driver cannot read or write its output, and has waited for it in vain."""


class TooManyRejects(Exception):
    """More of a shard was rejected than the run allows; another attempt would end the same way."""


class Stopped(Exception):
    """The worker is to stop, in the middle of a shard."""


DUPLICATE_KEY = "duplicate_key"
"""Reason of a `Reject`: an earlier sample of the shard has the key."""


class Reject(Exception):
    """A sample that cannot be used: it is turned down, and the others go on.

    Attributes:
        reason: one word that can be counted, such as `undecodable`.
        detail: the cause, for people.
        images: that are lost by it.
    """

    def __init__(self, reason: str, detail: str, images: int = 1) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.images = reason, detail, images


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Say of which setting it comes that the body cannot read or write.

    Around what a command does before its work begins: an `OSError` later on has other causes.

    Raises:
        ConfigError: with the setting and the error, in one line.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{setting}: not usable ({unwrapped(error)}); give another") from error


URI = re.compile(
    r"""(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?:[^\s/'"]*@)?(?P<place>[^\s?'"]*)(?:\?[^\s'"]*)?""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text for people, with no credentials and no query in the URIs that it names.

    What libraries say of a location they say with all that was given to them.
    """
    return URI.sub(r"\g<scheme>\g<place>", text)


def print_traceback() -> None:
    """Print where the error that is being handled comes from."""
    print(without_secrets(traceback.format_exc()), file=sys.stderr, end="", flush=True)


def one_line(error: BaseException, kind: bool = False) -> str:
    """The first line of what an error says: those that torch and pyarrow add are for developers.

    Without secrets, for it is printed and written down.

    Args:
        error: whatever was raised.
        kind: put the name of its class before it: a `KeyError` says no more than its key.
    """
    text = f"{type(error).__name__}: {error}" if kind else str(error)
    return without_secrets(text.partition("\n")[0])


def unwrapped(text: object) -> str:
    """All the lines of a text as one, where the first alone would not say what is wrong.

    Without secrets.
    """
    return without_secrets(" ".join(str(text).split()))
