"""A web server between a client and a real one, whose faults can be ordered.

    with FaultyProxy("http://127.0.0.1:5000") as proxy:   # before a moto, or any web server
        proxy.add(Fault("status", status=503, seconds=3))  # for three seconds
        proxy.add(Fault("cut", share=0.3, method="GET"))   # 30 % of what is left, drawn by the seed
        ... requests to proxy.address ...
        proxy.heal()
        proxy.requests                                     # what was asked, and what was done

It answers many requests at once, each connection in a thread. Requests are passed on whole, so that
the order of headers and signatures does not matter to it.
"""

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

Kind = Literal["status", "drop", "reset", "cut", "stall", "drip", "slow"]
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class Fault:
    """What goes wrong, with which requests.

    Attributes:
        kind: `status`: answers with `status` and no body. `drop`: closes the connection without an
            answer. `reset`: the same, with a TCP reset. `cut`: promises the whole body, sends the
            part `keep` of it and closes. `stall`: the same, but keeps the connection open and
            silent. `drip`: sends the whole body, `drip_bytes` every `drip_seconds`. `slow`:
            answers well, `delay` seconds late. Where a body is needed and there is none, `cut`,
            `stall` and `drip` leave out the answer.
        share: of the requests that it fits, drawn by the proxy's random numbers.
        method: only requests of this method; "" for all.
        path: only requests with this in path and query.
        seconds: for how long, from when it is added; None until it is healed.
        count: how many times; None for any number.
        forward: whether the request reaches the server behind (what a `status`, `drop` or `reset`
            swallows is then the answer to something that was done).
    """

    kind: Kind
    share: float = 1.0
    method: str = ""
    path: str = ""
    seconds: float | None = None
    count: int | None = None
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep: float = 0.5
    drip_bytes: int = 1
    drip_seconds: float = 0.5
    delay: float = 1.0
    forward: bool = False
    until: float = float("inf")
    """Set when it is added (`time.monotonic`)."""

    def fits(self, method: str, path: str) -> bool:
        return (
            time.monotonic() < self.until
            and self.count != 0
            and self.method in ("", method)
            and self.path in path
        )


@dataclass(frozen=True)
class Seen:
    """A request, and what was done to it."""

    method: str
    path: str
    at: float
    fault: Kind | None
    range: str = ""


class FaultyProxy:
    """See above.

    Attributes:
        address: where it listens, such as `http://127.0.0.1:1234`.
        requests: what it has seen, in the order of arrival.
    """

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Seen] = []
        self._faults: list[Fault] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._healed = threading.Event()
        self._server = self._listen(0)
        self.port = int(self._server.server_address[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, fault: Fault) -> Fault:
        """Begin with a fault. Of several that fit a request, the first that is drawn happens."""
        if fault.seconds is not None:
            fault.until = time.monotonic() + fault.seconds
        with self._lock:
            self._healed.clear()
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """End all faults, those that are going on included."""
        with self._lock:
            self._faults.clear()
            self._healed.set()

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """Nobody listens: connections are refused."""
        self._stop()
        try:
            yield
        finally:
            self._server = self._listen(self.port)

    def counts(self) -> Counter[str]:
        """Requests by method."""
        return Counter(seen.method for seen in self.requests)

    def faults(self) -> Counter[str]:
        """Faults that happened, by kind."""
        return Counter(seen.fault for seen in self.requests if seen.fault is not None)

    def close(self) -> None:
        self.heal()
        self._stop()

    def draw(self, method: str, path: str) -> Fault | None:
        """The fault that happens to a request, if one does."""
        with self._lock:
            for fault in self._faults:
                if fault.fits(method, path) and self._random.random() < fault.share:
                    if fault.count is not None:
                        fault.count -= 1
                    return fault
        return None

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.requests.append(seen)

    def sleep(self, seconds: float) -> bool:
        """Wait, or until all is healed; whether it was."""
        return self._healed.wait(seconds)

    def _listen(self, port: int) -> "_Server":
        server = _Server(("127.0.0.1", port), _Handler)
        server.proxy = self
        # Not joined: its thread ends with shutdown(), those of its connections with them.
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()


class _Server(ThreadingHTTPServer):
    proxy: FaultyProxy
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: object) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep for later."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        fault = proxy.draw(self.command, self.path)
        asked = self.headers.get("Range", "")
        kind = fault.kind if fault else None
        proxy.note(Seen(self.command, self.path, time.monotonic(), kind, asked))
        if fault is not None and fault.kind == "slow":
            proxy.sleep(fault.delay)
            fault = None
        if fault is not None and fault.kind in ("status", "drop", "reset"):
            if fault.forward:
                self._upstream(body)
            self._refuse(fault)
            return
        status, reason, headers, content = self._upstream(body)
        if fault is not None and not content:
            if fault.kind == "stall":
                proxy.sleep(3600)
            self.close_connection = True
            return
        self.send_response_only(status, reason)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        told = dict((name.lower(), value) for name, value in headers)
        length = told.get("content-length", "0") if self.command == "HEAD" else str(len(content))
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self._send(content, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _send(self, content: bytes, fault: Fault | None) -> None:
        if fault is None:
            self.wfile.write(content)
        elif fault.kind == "drip":
            for start in range(0, len(content), fault.drip_bytes):
                self.wfile.write(content[start : start + fault.drip_bytes])
                self.server.proxy.sleep(fault.drip_seconds)
        else:
            self.wfile.write(content[: int(len(content) * fault.keep)])
            if fault.kind == "stall":
                self.server.proxy.sleep(3600)
            self.close_connection = True

    def _refuse(self, fault: Fault) -> None:
        if fault.kind == "status":
            self.send_response_only(fault.status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(fault.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(fault.body)
            return
        if fault.kind == "reset":
            # To close a socket that may not linger is to reset it.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.server._open.discard(self.connection)
            self.rfile.close()
            self.connection.close()
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _upstream(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.reason, response.getheaders(), content


class FileServer:
    """A web server over a folder, which knows dates, tags and ranges; to be put behind a proxy.

    Attributes:
        address: where it listens.
        folder: whose files it has.
        ranges: whether it answers with parts of files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranges = True
        self._server = _Files(("127.0.0.1", 0), _FileHandler)
        self._server.files = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> "FileServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Files(ThreadingHTTPServer):
    files: FileServer
    daemon_threads = True
    request_queue_size = 128


class _FileHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Files

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.server.files.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content, written = path.read_bytes(), path.stat().st_mtime_ns
        tag, start = f'"{written:x}-{len(content):x}"', 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.server.files.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked[1])
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", formatdate(written / 1e9, usegmt=True))
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:])

    do_HEAD = do_GET
