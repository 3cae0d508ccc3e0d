"""Tar files, photographs and runs to try things with."""

import functools
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image
from werkzeug.serving import WSGIRequestHandler

from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import PromptExplainer
from pipeline.outputs.ledger import Ledger
from pipeline.run.run import run_shards
from pipeline.run.worker import MakeWorker, Worker
from pipeline.storage import files

Members = Iterable[tuple[str, bytes]]


def tar(members: Members, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A complete tar of regular files; a name that ends in / becomes a directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=format) as writer:
        for name, data in members:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = len(data) if member.isreg() else 0
            writer.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def picture(seed: int = 0, size: tuple[int, int] = (40, 30), format: str = "JPEG") -> bytes:
    """An encoded image of `size` = (width, height), different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(encoded, format)
    return encoded.getvalue()


def labelled(key: str, labels: object, image: bytes | None = None) -> list[tuple[str, bytes]]:
    """The members of a sample with its labels in the .json."""
    return [
        (f"{key}.jpg", image or picture()),
        (f"{key}.json", json.dumps({"labels": labels}).encode()),
    ]


@pytest.fixture(name="tar", scope="session")
def tar_fixture() -> Callable[..., bytes]:
    """`tar(members, format=)` → bytes of an archive."""
    return tar


@pytest.fixture(name="picture", scope="session")
def picture_fixture() -> Callable[..., bytes]:
    """`picture(seed, size=, format=)` → bytes of an image."""
    return picture


@pytest.fixture(name="labelled", scope="session")
def labelled_fixture() -> Callable[..., list[tuple[str, bytes]]]:
    """`labelled(key, labels, image=)` → members of a sample."""
    return labelled


@pytest.fixture
def good() -> bytes:
    """A shard of six samples with two labels each."""
    return tar(member for i in range(6) for member in labelled(f"{i}", ["dog", "cat"]))


ENGINE = ExecutionConfig(
    executor="local", threads=1, batch_size=4, log_seconds=1000.0, max_attempts=2
)


@pytest.fixture(scope="session")
def explainer() -> PromptExplainer:
    """The demo's CLIP, for prompts out of samples."""
    return PromptExplainer(AnnotateConfig(engine=ENGINE))


@pytest.fixture(scope="session")
def make_worker(explainer: PromptExplainer) -> MakeWorker:
    """Workers that share `explainer`."""
    return lambda config: Worker(config, lambda _: explainer)


@pytest.fixture
def annotate(make_worker: MakeWorker) -> Callable[..., Ledger]:
    """`annotate(config, make_worker=)`: a run as the command makes it, in this process."""

    def run(config: AnnotateConfig, make_worker: MakeWorker = make_worker) -> Ledger:
        ledger = Ledger(config.output)
        ledger.open(config.identity(), {}, [], config.on_mismatch == "redo")
        shards = find_shards(config.patterns, config.input_root)
        run_shards(config, ledger, shards, make_worker)
        return ledger

    return run


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., AnnotateConfig]:
    """`make_config(**fields)`: a run of the demo model in this process, frugal and quiet."""

    def make(**fields: object) -> AnnotateConfig:
        config = AnnotateConfig(output=str(tmp_path / "out"), engine=ENGINE)
        return replace(config, **fields)

    return make


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[..., str]:
    """`write_shards(name=bytes, …)` → the folder that they are in."""

    def write(**shards: bytes) -> str:
        folder = tmp_path / "shards"
        folder.mkdir(exist_ok=True)
        for name, data in shards.items():
            (folder / f"{name}.tar").write_bytes(data)
        return str(folder)

    return write


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a local S3 with an empty bucket `data`, which pyarrow also finds."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files._filesystem.cache_clear()  # it may know another test's server
    # All servers of a process share one state, which another test may have left full.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    yield client
    server.stop()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a local web server; `cut-` files come without their second half."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def copyfile(self, source: Any, outputfile: Any) -> None:
            data = source.read()
            outputfile.write(data[: len(data) // 2] if "/cut-" in self.path else data)

    handler = functools.partial(Handler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def requests(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Method and path of every request that the local S3 answers."""
    seen: list[str] = []

    def note(handler: WSGIRequestHandler, *_: object) -> None:
        seen.append(handler.requestline)

    monkeypatch.setattr(WSGIRequestHandler, "log_request", note)
    return seen


def files_below(folder: Path) -> Iterator[str]:
    return (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="session")
def tree() -> Callable[[str], dict[str, bytes]]:
    """`tree(folder)`: path → bytes of every file below a folder."""

    def read(folder: str) -> dict[str, bytes]:
        return {name: Path(folder, name).read_bytes() for name in sorted(files_below(Path(folder)))}

    return read
