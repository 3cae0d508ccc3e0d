"""What calls cost at an object store, and what becomes of its faults: a real server of S3.

The figures are those of pyarrow 26 with moto; see `pipeline.storage.object_stores`.
"""

import contextlib
import gc
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline import storage
from pipeline.storage import files, object_stores
from tests.faulty import Fault, FaultyProxy

MIB = 1 << 20


def methods(requests: list[str]) -> Counter[str]:
    """How many of each there were; forgets them."""
    count = Counter(line.partition(" ")[0] for line in requests)
    requests.clear()
    return count


@pytest.mark.parametrize(
    ("size", "cost"),
    [
        (0, {"PUT": 1}),
        (1000, {"PUT": 1}),
        (3 * MIB, {"PUT": 1}),
        (10 * MIB - 1, {"PUT": 1}),
        (10 * MIB, {"POST": 2, "PUT": 1}),
        (11 * MIB, {"POST": 2, "PUT": 2}),
    ],
)
def test_an_object_of_some_megabytes_is_one_request(
    requests: list[str], size: int, cost: dict[str, int]
) -> None:
    data = os.urandom(size)
    storage.write_bytes("s3://data/out/a", data)
    assert methods(requests) == cost
    with storage.create("s3://data/out/b") as file:
        for start in range(0, size, MIB):
            file.write(data[start : start + MIB])
    assert methods(requests) == cost
    assert storage.read_bytes("s3://data/out/a") == storage.read_bytes("s3://data/out/b") == data


@pytest.mark.parametrize("size", [1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_reading_costs_a_look_and_a_request_for_every_8_mib(
    requests: list[str], bucket: Any, size: int
) -> None:
    data = os.urandom(size)
    bucket.put_object(Bucket="data", Key="in/a", Body=data)
    requests.clear()
    with storage.open_read("s3://data/in/a") as stream:
        assert b"".join(iter(lambda: stream.read(100_000), b"")) == data
    assert methods(requests) == {"HEAD": 1, "GET": -(-size // (8 * MIB))}


def test_what_else_costs(requests: list[str], bucket: Any) -> None:
    for number in range(3):
        bucket.put_object(Bucket="data", Key=f"in/{number}", Body=b"1")
    requests.clear()
    costs = {}

    def ask(name: str, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)
        costs[name] = dict(methods(requests))

    ask("exists", storage.exists, "s3://data/in/0")
    ask("exists, and does not", storage.exists, "s3://data/in/none")
    ask("version", storage.version, "s3://data/in/0")
    ask("list_files", storage.list_files, "s3://data/in")
    ask("list_files of none", storage.list_files, "s3://data/none")
    ask("find one", storage.find, "s3://data/in/0")
    ask("remove", storage.remove, "s3://data/in/0")
    ask("remove none", storage.remove, "s3://data/in/0")
    assert costs == {
        "exists": {"HEAD": 1},
        "exists, and does not": {"HEAD": 1},
        "version": {"HEAD": 1},
        "list_files": {"GET": 1},
        "list_files of none": {"GET": 1},
        "find one": {"HEAD": 1},
        # pyarrow looks first, and writes the folder anew in case it was the last object there.
        "remove": {"HEAD": 1, "DELETE": 1, "PUT": 1},
        "remove none": {"HEAD": 1},
    }


@pytest.fixture
def proxy(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Stands before an S3 with an object `a` of 3,000 bytes, and is what `s3://` reaches."""
    bucket.put_object(Bucket="data", Key="in/a", Body=b"abc" * 1000)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], seed=2) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        files._filesystem.cache_clear()
        yield proxy
    files._filesystem.cache_clear()


def write(data: bytes = b"new") -> None:
    storage.write_bytes("s3://data/out/b", data)


def read() -> bytes:
    return storage.read_bytes("s3://data/in/a")


CALLS: dict[str, Callable[[], object]] = {
    "read": read,
    "write": write,
    "exists": lambda: storage.exists("s3://data/in/a"),
    "find": lambda: storage.find("s3://data/in"),
    "list_files": lambda: storage.list_files("s3://data/in"),
    "version": lambda: storage.version("s3://data/in/a"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_burst_of_errors_is_survived(proxy: FaultyProxy, call: Callable[[], object]) -> None:
    expected = call()
    for fault in (
        Fault("status", status=500, seconds=1),
        Fault("status", status=503, count=5),
        Fault("drop", count=5),
        Fault("reset", count=5),
    ):
        proxy.add(fault)
        assert call() == expected
        assert sum(proxy.faults().values()) >= 4
        proxy.heal()
        proxy.requests.clear()


def test_bursts_of_some_seconds_are_survived(proxy: FaultyProxy) -> None:
    proxy.add(Fault("status", seconds=3))
    assert read() == b"abc" * 1000
    proxy.add(Fault("reset", seconds=3))
    write()


@pytest.mark.parametrize("kind", ["status", "refused"])
def test_an_outage_is_an_error_that_passes_within_seconds(proxy: FaultyProxy, kind) -> None:
    began = time.monotonic()
    if kind == "refused":
        with proxy.unplugged(), pytest.raises(OSError) as raised:
            storage.exists("s3://data/in/a")
    else:
        proxy.add(Fault(kind))
        with pytest.raises(OSError) as raised:
            write()
        assert len(proxy.requests) == 1 + object_stores.ATTEMPTS
    assert storage.is_transient(raised.value)
    assert 5 < time.monotonic() - began < 10


@pytest.mark.long
def test_silence_is_an_error_that_passes_within_half_a_minute(proxy: FaultyProxy) -> None:
    proxy.add(Fault("slow", delay=1000))
    began = time.monotonic()
    with pytest.raises(OSError, match="Timeout was reached") as raised:
        storage.exists("s3://data/in/a")
    assert storage.is_transient(raised.value)
    assert time.monotonic() - began < 40


def test_a_body_that_comes_in_short_is_read_again_or_an_error(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.add(Fault("cut", method="GET", count=3))
    assert read() == b"abc" * 1000
    assert proxy.counts() == {"HEAD": 1, "GET": 4}
    monkeypatch.setattr(object_stores, "ATTEMPTS", 1)
    files._filesystem.cache_clear()
    proxy.add(Fault("cut", method="GET"))
    with pytest.raises(OSError) as raised:
        read()
    assert storage.is_transient(raised.value)


def answer(code: str) -> bytes:
    """What S3 says of an error."""
    return f"<Error><Code>{code}</Code><Message>As it says</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (503, "SlowDown", True),
        (503, "ServiceUnavailable", True),
        (500, "InternalError", True),
        (400, "RequestTimeout", True),
        (429, "TooManyRequests", True),
        (403, "AccessDenied", False),
        (403, "InvalidAccessKeyId", False),
        (403, "SignatureDoesNotMatch", False),
        (404, "NoSuchBucket", False),
        (400, "InvalidRequest", False),
    ],
)
def test_what_pyarrow_says_is_understood(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, status: int, code: str, passes: bool
) -> None:
    monkeypatch.setattr(object_stores, "ATTEMPTS", 1)
    proxy.add(Fault("status", status=status, body=answer(code)))
    files._filesystem.cache_clear()
    # Where the answer to a HEAD has no body, only the status tells.
    names = {"RequestTimeout": ("write", "list_files"), "NoSuchBucket": ("write",)}.get(code, CALLS)
    for name in names:
        with pytest.raises(OSError) as raised:
            CALLS[name]()
        assert storage.is_transient(raised.value) == passes, raised.value


def test_a_bucket_that_is_not_there_does_not_pass(proxy: FaultyProxy) -> None:
    with pytest.raises(OSError) as raised:
        storage.write_bytes("s3://nothing/a", b"1")
    assert not storage.is_transient(raised.value)
    with pytest.raises(OSError) as raised:
        storage.read_bytes("s3://nothing/a")
    assert not storage.is_transient(raised.value)


def test_successes_do_not_use_up_what_may_fail(proxy: FaultyProxy) -> None:
    """The AWS SDK's standard policy has a budget, which pyarrow spends and never refills."""
    for _ in range(130):
        proxy.add(Fault("status", count=1))
        assert storage.exists("s3://data/in/a")
    assert proxy.faults()["status"] == 130


@pytest.mark.parametrize(
    ("size", "where"),
    [
        (1000, "/out/b"),
        (11 * MIB, "?uploads"),
        (11 * MIB, "partNumber=1"),
        (11 * MIB, "partNumber=2"),
        (11 * MIB, "uploadId="),
    ],
)
def test_a_write_that_fails_leaves_what_was_there(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, size: int, where: str
) -> None:
    monkeypatch.setattr(object_stores, "ATTEMPTS", 1)
    files._filesystem.cache_clear()
    write(b"old")
    proxy.add(Fault("status", path=where))
    with pytest.raises(OSError):
        write(b"n" * size)
    with pytest.raises(OSError), storage.create("s3://data/out/b") as file:
        file.write(b"n" * size)
    assert proxy.faults()["status"] >= 4
    proxy.heal()
    gc.collect()  # pyarrow sends what it still has at the end of a stream's life
    assert storage.read_bytes("s3://data/out/b") == b"old"


class Interrupt(BaseException):
    """What Ctrl-C raises, in this test."""


def test_an_interrupt_leaves_a_whole_object(bucket: Any) -> None:
    """At whatever moment it comes, also between two steps of a write."""

    def alarm(*_: object) -> None:
        raise Interrupt

    contents = (b"old" * 1000, b"new" * 1000)
    storage.write_bytes("s3://data/a", contents[0])
    chance, written = random.Random(0), 0
    before = signal.signal(signal.SIGALRM, alarm)
    for turn in range(60):
        with contextlib.suppress(Interrupt):
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.02))
            storage.write_bytes("s3://data/a", contents[turn % 2])
            signal.setitimer(signal.ITIMER_REAL, 0)
            written += 1
        assert storage.read_bytes("s3://data/a") in contents
    signal.signal(signal.SIGALRM, before)
    assert written < 50


@pytest.mark.parametrize(
    "options",
    ["", "?scheme=http&endpoint_override={0}", "?region=eu-west-3&allow_delayed_open=false"],
)
def test_the_ways_to_name_a_server(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    if "endpoint" in options:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.invalid")
        options = options.format(proxy.address.removeprefix("http://"))
    assert storage.read_bytes(f"s3://data/in/a{options}") == b"abc" * 1000
    assert storage.read_bytes(f"s3://ke%2Fy:secret@data/in/a{options}") == b"abc" * 1000
    storage.write_bytes(f"s3://data/out/c{options}", b"1")
    assert [at.partition("?")[0] for at in storage.find(f"s3://data/out{options}")] == [
        "s3://data/out/c"
    ]


def test_the_more_special_name_of_the_server_counts(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.invalid")
    assert read() == b"abc" * 1000


def test_options_of_pyarrow_that_its_constructor_lacks(proxy: FaultyProxy) -> None:
    assert storage.read_bytes("s3://data/in/a?tls_verify_certificates=false") == b"abc" * 1000
    write()


@pytest.mark.parametrize(
    "location",
    ["s3://data/a?colour=red", "s3://data/a?allow_bucket_creation=perhaps", "ftp://data/a"],
)
def test_wrong_names_do_not_pass(proxy: FaultyProxy, location: str) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        storage.read_bytes(location)
    assert not storage.is_transient(raised.value)
