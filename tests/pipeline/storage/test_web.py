"""Files on a real web server, with real faults in between."""

import base64
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.storage import web
from tests.faulty import Fault, FaultyProxy, FileServer

CONTENT = random.Random(0).randbytes(3_000_000)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "file").write_bytes(CONTENT)
    with FileServer(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(served: FileServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(served.address, seed=1) as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers are waited for half a second."""
    monkeypatch.setattr(web, "PATIENCE", 0.5)
    web._pool.cache_clear()
    yield
    web._pool.cache_clear()


def fails(location: str) -> OSError:
    """What reading a file ends with."""
    with pytest.raises(OSError) as raised:
        storage.read_bytes(location)
    return raised.value


def test_a_file_costs_one_request_and_a_question_another(proxy: FaultyProxy) -> None:
    assert storage.read_bytes(f"{proxy.address}/file") == CONTENT
    assert proxy.counts() == {"GET": 1}
    ((place, found),) = storage.find(f"{proxy.address}/file").items()
    assert (place, found.size) == (f"{proxy.address}/file", len(CONTENT))
    assert "ETag" in storage.version(f"{proxy.address}/file")
    assert proxy.counts() == {"GET": 1, "HEAD": 2}


def test_a_stream_reads_as_a_file_does(proxy: FaultyProxy) -> None:
    with storage.open_read(f"{proxy.address}/file") as stream:
        parts = [stream.read(7), stream.read(1_500_000), stream.read(), stream.read(1)]
    assert [len(part) for part in parts] == [7, 1_500_000, len(CONTENT) - 1_500_007, 0]
    assert b"".join(parts) == CONTENT


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_burst_of_errors_is_survived(proxy: FaultyProxy, status: int) -> None:
    proxy.add(Fault("status", status=status, seconds=1.5))
    assert storage.read_bytes(f"{proxy.address}/file") == CONTENT
    assert proxy.faults()["status"] >= 2


@pytest.mark.parametrize("kind", ["drop", "reset"])
def test_connections_that_break_are_made_again(proxy: FaultyProxy, kind) -> None:
    proxy.add(Fault(kind, count=2))
    assert storage.version(f"{proxy.address}/file")
    proxy.add(Fault(kind, count=2))
    assert storage.read_bytes(f"{proxy.address}/file") == CONTENT
    assert proxy.faults() == {kind: 4}


@pytest.mark.parametrize("path", ["read", "version"])
def test_an_outage_is_an_error_that_passes_after_some_seconds(
    proxy: FaultyProxy, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask = storage.read_bytes if path == "read" else storage.version
    proxy.add(Fault("status", headers={"Retry-After": "3600"}))
    began = time.monotonic()
    with pytest.raises(OSError, match=r"/file: HTTP 503 Service Unavailable$") as raised:
        ask(f"{proxy.address}/file?signature=secret")
    assert storage.is_transient(raised.value)
    assert time.monotonic() - began < 10
    assert len(proxy.requests) == 5
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nobody_listens(proxy: FaultyProxy) -> None:
    with proxy.unplugged():
        began = time.monotonic()
        assert storage.is_transient(fails(f"{proxy.address}/file"))
        assert time.monotonic() - began < 10
    assert storage.read_bytes(f"{proxy.address}/file") == CONTENT


def test_names_that_mean_nothing_pass() -> None:
    error = fails("http://nowhere.invalid/file")
    assert storage.is_transient(error) and "nowhere.invalid" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, OSError), (401, PermissionError), (403, PermissionError), (410, FileNotFoundError)],
)
def test_what_a_server_refuses_is_not_asked_again(
    proxy: FaultyProxy, status: int, kind: type[OSError]
) -> None:
    proxy.add(Fault("status", status=status))
    error = fails(f"{proxy.address}/file?signature=secret")
    assert isinstance(error, kind) and not storage.is_transient(error)
    assert f"HTTP {status}" in str(error) and "secret" not in str(error)
    assert len(proxy.requests) == 1


def test_what_is_not_there(proxy: FaultyProxy) -> None:
    assert storage.find(f"{proxy.address}/other") == {}
    assert isinstance(fails(f"{proxy.address}/other"), FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        storage.version(f"{proxy.address}/other")


@pytest.mark.parametrize("location", ["http://", "http://a b/", "http://[::1/x"])
def test_what_is_no_address_does_not_pass(location: str) -> None:
    with pytest.raises((OSError, ValueError)) as raised:
        storage.read_bytes(location)
    assert not storage.is_transient(raised.value)


def test_a_body_that_breaks_is_taken_up_where_it_broke(proxy: FaultyProxy) -> None:
    proxy.add(Fault("cut", count=3))
    assert storage.read_bytes(f"{proxy.address}/file") == CONTENT
    assert [seen.range for seen in proxy.requests] == [
        "",
        "bytes=1500000-",
        "bytes=2250000-",
        "bytes=2625000-",
    ]


def test_a_body_that_breaks_again_and_again_is_an_error(proxy: FaultyProxy) -> None:
    proxy.add(Fault("cut", keep=0.01))
    assert storage.is_transient(fails(f"{proxy.address}/file"))
    assert len(proxy.requests) == 1 + web.RESUMED


def test_a_body_is_not_taken_up_where_the_server_has_no_ranges(
    served: FileServer, proxy: FaultyProxy
) -> None:
    served.ranges = False
    proxy.add(Fault("cut", count=1))
    error = fails(f"{proxy.address}/file")
    assert storage.is_transient(error) and "IncompleteRead" in str(error)
    assert len(proxy.requests) == 2


def test_no_file_is_made_of_two_versions(served: FileServer, proxy: FaultyProxy) -> None:
    proxy.add(Fault("cut", count=1))
    with storage.open_read(f"{proxy.address}/file") as stream:
        assert stream.read(1000) == CONTENT[:1000]
        (served.folder / "file").write_bytes(CONTENT[::-1])
        os.utime(served.folder / "file", (1e9, 1e9))
        with pytest.raises(OSError) as raised:
            stream.read()
    assert storage.is_transient(raised.value)


def test_silence_is_an_error(proxy: FaultyProxy, impatient: None) -> None:
    for where in (0.5, 0.0):
        proxy.add(Fault("stall", keep=where))
        began = time.monotonic()
        assert storage.is_transient(fails(f"{proxy.address}/file"))
        assert time.monotonic() - began < 2
        proxy.heal()
    proxy.add(Fault("slow", delay=30))
    began = time.monotonic()
    with pytest.raises(OSError) as raised:
        storage.version(f"{proxy.address}/file")
    assert storage.is_transient(raised.value)
    assert time.monotonic() - began < 2


def test_drops_are_waited_for(served: FileServer, proxy: FaultyProxy, impatient: None) -> None:
    (served.folder / "small").write_bytes(b"drops")
    proxy.add(Fault("drip", drip_seconds=0.2))
    assert storage.read_bytes(f"{proxy.address}/small") == b"drops"


def test_faults_at_random_change_no_byte(proxy: FaultyProxy) -> None:
    for kind in ("status", "drop", "reset", "cut"):
        proxy.add(Fault(kind, share=0.15))
    whole = 0
    for _ in range(12):
        try:
            assert storage.read_bytes(f"{proxy.address}/file") == CONTENT
            whole += 1
        except OSError as error:
            assert storage.is_transient(error)
    assert whole >= 10
    assert len(proxy.faults()) == 4


def test_many_at_once(proxy: FaultyProxy) -> None:
    read: list[bytes] = []
    ask = lambda: read.append(storage.read_bytes(f"{proxy.address}/file"))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [data == CONTENT for data in read] == [True] * 16


def test_a_child_does_not_go_on_with_the_connections_of_its_parent(proxy: FaultyProxy) -> None:
    location = f"{proxy.address}/file"
    storage.version(location)
    assert web._pool(os.getpid(), None) is web._pool(os.getpid(), None)
    assert web._pool(os.getpid() + 1, None) is not web._pool(os.getpid(), None)


class _Picky(BaseHTTPRequestHandler):
    """Sends people elsewhere, and asks who they are."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        known = f"Basic {base64.b64encode(b'me:se cret').decode()}"
        status = 200 if self.headers.get("Authorization") == known else 401
        self.send_response(302 if self.path in ("/old", "/round") else status)
        self.send_header("Location", "/new" if self.path == "/old" else "/round")
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"abc")


@pytest.fixture
def picky() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Picky)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_redirects_and_names_in_the_address(picky: str) -> None:
    assert storage.read_bytes(f"http://me:se%20cret@{picky}/old") == b"abc"
    error = fails(f"http://me:wrong@{picky}/old")
    assert isinstance(error, PermissionError) and "wrong" not in str(error)


def test_redirects_without_end_do_not_pass(picky: str) -> None:
    error = fails(f"http://{picky}/round")
    assert "too many redirects" in str(error) and not storage.is_transient(error)


def test_the_environment_s_proxy_is_used(
    proxy: FaultyProxy, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", proxy.address)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.delenv("NO_PROXY", raising=False)
        storage.version(f"http://elsewhere.invalid:{reserved.getsockname()[1]}/file")
    assert [seen.path.startswith("http://elsewhere.invalid") for seen in proxy.requests] == [True]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    storage.version(f"{served.address}/file")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("name", ["a b.tar", "run#1.tar", "ä%b.tar", "[0]{x}.tar", "a&b=c+d.tar"])
def test_a_name_is_asked_for_as_it_is(served: FileServer, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"tar")
    location = f"{served.address}/{name}"
    assert storage.read_bytes(location) == b"tar"
    ((place, found),) = storage.find(location).items()
    assert (place, found.size) == (location, 3)


@pytest.mark.parametrize("status", [401, 403, 405])
def test_who_may_not_ask_may_still_read(proxy: FaultyProxy, status: int) -> None:
    """A signature is good for the method that was signed."""
    proxy.add(Fault("status", status=status, method="HEAD"))
    ((_, found),) = storage.find(f"{proxy.address}/file").items()
    assert found.size == len(CONTENT) and found.modified
    assert proxy.counts() == {"HEAD": 1, "GET": 1}
    assert storage.version(f"{proxy.address}/file")
    assert storage.find(f"{proxy.address}/none") == {}


def test_who_may_neither_ask_nor_read_is_told(proxy: FaultyProxy) -> None:
    proxy.add(Fault("status", status=403))
    with pytest.raises(PermissionError, match="HTTP 403"):
        storage.find(f"{proxy.address}/file?signature=hush")


def test_a_server_need_not_say_how_long_a_file_is(proxy: FaultyProxy, served: FileServer) -> None:
    served.ranges = False
    proxy.add(Fault("status", status=403, method="HEAD"))
    ((_, found),) = storage.find(f"{proxy.address}/file").items()
    assert found.size == len(CONTENT)  # all of it was promised, and not read


STRANGE = (
    *("a b", "a\0b", "\udcff", "a\nb", "a\tb", "[", "{x}", "%", "%zz", "#", "a\\b"),
    "☃" * 300,
)
ROOTS = (
    *("file:///none", "/none", "s3://", "s3://a b", "ftp://x", "http://", "http://a b"),
    *("http://[::1", "http://127.0.0.1:1", "http://127.0.0.1:99999"),
)


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("root", ROOTS)
def test_a_strange_name_is_an_os_error_or_nothing(
    monkeypatch: pytest.MonkeyPatch, root: str, name: str
) -> None:
    monkeypatch.setattr(web, "RETRIES", False)
    web._pool.cache_clear()
    for ask in (storage.find, storage.version, storage.read_bytes):
        with suppress(OSError):
            assert ask(f"{root}/{name}") == {}
    web._pool.cache_clear()
