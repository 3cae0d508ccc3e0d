"""What passes and what does not, by every way in which storage says it."""

import errno
import os
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ModelError, ShardError
from pipeline.storage import faults

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
S3_PASSES = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT",
    "UNKNOWN (HTTP status 500)",
    "UNKNOWN (HTTP status 503)",
    "UNKNOWN (HTTP status 429)",
    "UNKNOWN (HTTP status 408)",
    "UNKNOWN (HTTP status -1)",
)
S3_STAYS = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "NO_SUCH_KEY",
    "RESOURCE_NOT_FOUND",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_SIGNATURE",
    "SIGNATURE_DOES_NOT_MATCH",
    "VALIDATION",
    "UNKNOWN (HTTP status 400)",
    "UNKNOWN (HTTP status 301)",
    "UNKNOWN (HTTP status 404)",
)


def s3(error: str, key: str = "k") -> OSError:
    """An error as pyarrow raises it (`test_s3.py` has it do so)."""
    return OSError(
        f"When reading information for key '{key}' in bucket 'data': AWS Error {error} during "
        "HeadObject operation: No response body."
    )


@given(st.sampled_from(S3_PASSES), KEYS)
def test_an_overloaded_object_store_passes(error: str, key: str) -> None:
    assert storage.is_transient(s3(error, key))


@given(st.sampled_from(S3_STAYS), KEYS)
def test_an_object_store_that_refuses_does_not(error: str, key: str) -> None:
    assert not storage.is_transient(s3(error, key))


@given(st.sampled_from(sorted(errno.errorcode)))
def test_an_error_number_counts_and_not_its_text(number: int) -> None:
    error = OSError(number, "AWS Error SLOW_DOWN during HeadObject operation")
    named = OSError(number, os.strerror(number), "/somewhere")
    assert storage.is_transient(error) == storage.is_transient(named)
    same = isinstance(error, ConnectionError | TimeoutError) or number in faults.PASSING
    assert storage.is_transient(error) == same


@pytest.mark.parametrize(
    "number",
    "EIO ESTALE ETIMEDOUT EAGAIN ECONNRESET ECONNREFUSED ENETUNREACH EHOSTUNREACH ENOSPC EDQUOT "
    "EROFS EMFILE ENFILE EPIPE".split(),
)
def test_disks_and_networks_that_are_in_trouble_pass(number: str) -> None:
    assert storage.is_transient(OSError(getattr(errno, number), "trouble", "file"))


@pytest.mark.parametrize(
    "number", "ENOENT EACCES EPERM EISDIR ENOTDIR ENAMETOOLONG EINVAL EEXIST".split()
)
def test_wrong_requests_do_not_pass(number: str) -> None:
    assert not storage.is_transient(OSError(getattr(errno, number), "wrong", "file"))


@pytest.mark.parametrize(
    "error",
    [
        storage.Unreachable("cut short"),
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
        BrokenPipeError(),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"),
        OSError("google::cloud::Status(UNAVAILABLE: Retry policy exhausted)"),
    ],
)
def test_other_things_that_pass(error: OSError) -> None:
    assert storage.is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("no such file"),
        PermissionError("HTTP 403"),
        IsADirectoryError("a directory"),
        OSError("something else"),
        ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, "certificate verify failed"),
        ssl.SSLError(ssl.SSL_ERROR_SYSCALL + 0, "handshake failure"),
        OSError("google::cloud::Status(PERMISSION_DENIED: no)"),
        OSError("AWS Error SLOW_DOWN is the name of a file"),
        ValueError("AWS Error SLOW_DOWN during HeadObject operation"),
        KeyboardInterrupt(),
        MemoryError(),
    ],
)
def test_other_things_that_stay(error: BaseException) -> None:
    assert not storage.is_transient(error)


@given(st.lists(st.sampled_from([ShardError, ModelError, RuntimeError, OSError]), max_size=5))
def test_an_error_that_does_not_say_is_what_its_cause_is(kinds: list[type[Exception]]) -> None:
    for root, passes in ((s3("SLOW_DOWN"), True), (FileNotFoundError("gone"), False)):
        error: BaseException = root
        for kind in kinds:
            outer = kind("not readable")
            outer.__cause__ = error
            error = outer
        assert storage.is_transient(error) == passes


def test_what_an_error_says_of_itself_counts_more_than_its_cause() -> None:
    missing = FileNotFoundError("there is no such file")
    missing.__cause__ = ConnectionResetError()
    assert not storage.is_transient(missing)


def test_causes_that_go_in_circles_end() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert not storage.is_transient(one)


def test_statuses() -> None:
    passing = [status for status in range(100, 600) if faults.passes(status)]
    assert passing == [408, 425, 429, *range(500, 600)]
