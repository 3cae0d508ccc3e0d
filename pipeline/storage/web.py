"""Files on web servers, which can be read and asked about, and no more."""

from __future__ import annotations

import functools
import io
import logging
import os
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from http.client import responses
from types import TracebackType
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    LocationValueError,
    MaxRetryError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
)

from pipeline.storage.faults import Unreachable, is_transient, passes
from pipeline.storage.locations import parts, public

PATIENCE = 60.0
"""Seconds that a server may say nothing."""
CONNECTING = 5.0
"""Seconds that it may take to answer the telephone."""
BUFFER = 1 << 20
RESUMED = 8
"""How often a body is taken up again where it broke."""
CONNECTIONS = 64
"""How many to one server are kept for the next request."""


Again = TypeVar("Again", bound="_Retry")


class _Retry(urllib3.Retry):
    """Requests again, within some 5 seconds; a server that was silent is not asked again."""

    def increment(
        self: Again,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Again:
        """Count what went wrong."""
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


RETRIES = _Retry(
    total=None,
    connect=2,
    read=4,
    status=4,
    other=2,
    redirect=10,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "HEAD"),
    backoff_factor=0.3,  # 0, 0.6, 1.2 and 2.4 seconds
    backoff_jitter=0.5,
    retry_after_max=2,
    raise_on_status=False,
)


def open_read(location: str) -> io.BufferedReader:
    """A buffered binary stream over the file. It ends where the file does, or raises.

    Raises:
        OSError: the file does not exist or cannot be reached; `Unreachable`, then and in the
            middle, where that may pass.
    """
    return io.BufferedReader(_Body(location), BUFFER)


def headers(location: str) -> Mapping[str, str] | None:
    """What the server says of a file; None where there is none.

    An address that was signed for reading alone answers no other question. So who refuses a HEAD is
    asked for the first byte instead, as the work would ask.

    Raises:
        OSError: the server does not answer, or refuses to.
    """
    try:
        response = _request("HEAD", location)
    except FileNotFoundError:
        return None
    except OSError as error:
        if isinstance(error, Unreachable):
            raise
        return _headers_of_a_byte(location)
    response.close()
    return response.headers


def _headers_of_a_byte(location: str) -> Mapping[str, str] | None:
    """The headers that a HEAD would have, from a GET; without a size where none is said."""
    try:
        response = _request("GET", location, {"Range": "bytes=0-0"})
    except FileNotFoundError:
        return None
    response.close()
    about = dict(response.headers)
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        about = {name: value for name, value in about.items() if name.lower() != "content-length"}
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]
        about |= {"Content-Length": whole} if whole.isdecimal() else {}
    return urllib3.HTTPHeaderDict(about)


def size(about: Mapping[str, str]) -> int:
    """Bytes of the file that some headers are about; 0 where they do not say."""
    return int(about.get("Content-Length", 0))


def version(about: Mapping[str, str]) -> str:
    """What its headers say about the state of a file: as much as there is of size, date and tag."""
    said = {name: about.get(name) for name in ("Content-Length", "Last-Modified", "ETag")}
    return ", ".join(f"{name}: {value}" for name, value in said.items() if value)


class _Body(io.RawIOBase):
    """The bytes of a file, as they come. A connection that breaks is made again for the rest."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._response = _request("GET", location)
        self._position = 0
        self._resumed = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        while True:
            try:
                data = self._response.read1(len(buffer))
            except (HTTPError, OSError) as error:
                self._resume(_raised(self._location, error), error)
                continue
            buffer[: len(data)] = data
            self._position += len(data)
            return len(data)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()

    def _resume(self, broken: OSError, cause: Exception) -> None:
        """Ask for the rest, of the same version of the file.

        Raises:
            OSError: what broke the connection, where the server does not have just that.
        """
        about = self._response.headers
        tag = about.get("ETag", "")
        version = tag if tag.startswith('"') else about.get("Last-Modified")
        self._response.close()
        self._resumed += 1
        if version is None or self._resumed > RESUMED or isinstance(cause, ReadTimeoutError):
            raise broken from cause
        wanted = {"Range": f"bytes={self._position}-", "If-Range": version}
        response = _request("GET", self._location, wanted)
        is_rest = response.headers.get("Content-Range", "").startswith(f"bytes {self._position}-")
        same = all(response.headers.get(n) == about.get(n) for n in ("ETag", "Last-Modified"))
        if response.status != HTTPStatus.PARTIAL_CONTENT or not (is_rest and same):
            response.close()
            raise broken from cause
        self._response = response


def _request(
    method: str, location: str, more: Mapping[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    """The answer to a request that is granted, its body yet to be read.

    Raises:
        OSError: it is not, or there is no answer.
    """
    taken = parts(location)
    known, at, host = taken.host.rpartition("@")
    address = taken._replace(host=host, path=taken.path.replace("#", "%23")).joined()
    sent = {"Accept-Encoding": "identity", **(more or {})}
    if at:
        user, _, password = known.partition(":")
        sent |= urllib3.make_headers(basic_auth=f"{unquote(user)}:{unquote(password)}")
    try:
        response = _pool(os.getpid(), _proxy(taken.scheme, host)).request(
            method,
            address,
            headers=sent,
            preload_content=False,
            decode_content=False,
        )
    except (HTTPError, OSError) as error:
        raise _raised(location, error) from error
    if response.status < HTTPStatus.MULTIPLE_CHOICES:
        return response
    response.close()
    raise _refused(location, response.status)


@functools.cache
def _pool(process: int, proxy: str | None) -> urllib3.PoolManager:
    """The connections of a process: a child must not go on with those of its parent."""
    # It warns of each retry, with the address, in which there may be a signature.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    timeout = urllib3.Timeout(connect=CONNECTING, read=PATIENCE)
    if proxy is None:
        return urllib3.PoolManager(maxsize=CONNECTIONS, timeout=timeout, retries=RETRIES)
    known = urlsplit(proxy).netloc.rpartition("@")[0]
    return urllib3.ProxyManager(
        proxy,
        proxy_headers=urllib3.make_headers(proxy_basic_auth=unquote(known)) if known else None,
        maxsize=CONNECTIONS,
        timeout=timeout,
        retries=RETRIES,
    )


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a server, if any."""
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _refused(location: str, status: int) -> OSError:
    """What to raise for an answer that is none."""
    text = f"{public(location)}: HTTP {status} {responses.get(status, '')}".rstrip()
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return FileNotFoundError(text)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return PermissionError(text)
    return Unreachable(text) if passes(status) else OSError(text)


def _raised(location: str, error: Exception) -> OSError:
    """What to raise for an error of the library, or of the network below it."""
    reason = error.reason if isinstance(error, MaxRetryError) else error
    text = f"{public(location)}: {reason}"
    if isinstance(reason, SSLError) and reason.args and isinstance(reason.args[0], ssl.SSLError):
        reason = reason.args[0]
    if isinstance(reason, OSError):
        return Unreachable(text) if is_transient(reason) else OSError(text)
    lasting = isinstance(reason, LocationValueError | InvalidHeader | ResponseError)
    return OSError(text) if lasting else Unreachable(text)
