"""Which errors pass: the same request may succeed later, for nothing is wrong with what it asks."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from http import HTTPStatus


class Unreachable(OSError):
    """What was asked for did not come, or not whole; it may come later."""


PASSING = frozenset(
    getattr(errno, name)
    for name in (
        # The network, and disks behind it.
        "ECONNABORTED ECONNREFUSED ECONNRESET EHOSTDOWN EHOSTUNREACH ENETDOWN ENETRESET "
        "ENETUNREACH ENOTCONN EPIPE ESHUTDOWN ETIMEDOUT EREMOTEIO ESTALE EIO ENOLCK "
        # What others use up, or hold, and give back.
        "EAGAIN EBUSY EDQUOT EINTR EMFILE ENFILE ENOBUFS ENOMEM ENOSPC "
        # Linux makes a disk read-only that it has trouble with.
        "EROFS"
    ).split()
    if hasattr(errno, name)
)
"""Error numbers of the system."""

ALSO_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)

S3 = re.compile(r"AWS Error ([A-Z0-9_]+)(?: \(HTTP status (-?\d+)\))? during \w+ operation")
"""How pyarrow names an error of S3: in words if the SDK knows it, else with the status."""
S3_PASSING = frozenset(
    (
        "INTERNAL_FAILURE NETWORK_CONNECTION REQUEST_TIMEOUT SERVICE_UNAVAILABLE SLOW_DOWN "
        "THROTTLING"
    ).split()
)
NO_ANSWER = -1
"""The status where there is none."""

GOOGLE = re.compile(r"google::cloud::Status\(([A-Z_]+): ")
"""The same for Google's storage."""
GOOGLE_PASSING = frozenset(
    "ABORTED DEADLINE_EXCEEDED INTERNAL RESOURCE_EXHAUSTED UNAVAILABLE".split()
)


def passes(status: int) -> bool:
    """Whether a web server that answers with this status may answer otherwise later."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in ALSO_PASSING


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed later.

    So it is for timeouts, connections that break or are refused, servers that are overloaded or
    out of order, bodies that come in short, full disks. It is not for what does not exist or may
    not be read, for wrong names and wrong credentials: nothing changes there unless somebody does
    something. An error that does not say is what its cause is.
    """
    seen = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        verdict = _verdict(cause)
        if verdict is not None:
            return verdict
        cause = cause.__cause__
    return False


def _verdict(error: BaseException) -> bool | None:
    """The same of one error, if it says."""
    if isinstance(error, Unreachable | ConnectionError | TimeoutError | socket.gaierror):
        return True
    if isinstance(error, ssl.SSLError):  # whose error numbers are not those of the system
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
            return True
        return False if isinstance(error, ssl.SSLCertVerificationError) else None
    if not isinstance(error, OSError):
        return None
    if error.errno is not None:
        return error.errno in PASSING
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    return _said(str(error))


def _said(text: str) -> bool | None:
    """What the text says in which pyarrow has put the error of an object store."""
    if found := S3.search(text):
        name, status = found.groups()
        if status is None:
            return name in S3_PASSING
        return int(status) == NO_ANSWER or passes(int(status))
    if found := GOOGLE.search(text):
        return found[1] in GOOGLE_PASSING
    return None
