"""Reading, writing and finding objects: on a disk, in a real S3 server, on a real web server."""

from __future__ import annotations

import errno
import os
import re
import resource
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.annotate import main
from pipeline import storage
from pipeline.demo.run import SHARDS
from pipeline.errors import ConfigError, ShardError
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import read_samples
from pipeline.storage import files


def test_local_write_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    storage.write_bytes(str(target), b"first")
    storage.write_bytes(str(target), b"second")
    assert target.read_bytes() == b"second"
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_failed_local_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


@pytest.fixture
def files_of_64_kb() -> Iterator[None]:
    """The system lets this process write no larger ones."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_without_room_is_named_and_keeps_the_old_file(
    tmp_path: Path, bucket: Any, files_of_64_kb: None
) -> None:
    target = tmp_path / "file.bin"
    storage.write_bytes(str(target), b"old")
    with pytest.raises(OSError, match=re.escape(f"File too large: '{target}'")):
        storage.write_bytes(str(target), b"n" * 100_000)
    with (
        pytest.raises(OSError, match=re.escape(f"File too large: '{target}'")),
        storage.create(str(target)) as file,
    ):
        file.write(b"n" * 100_000)
    with pytest.raises(OSError, match="File too large") as raised:
        with storage.create("s3://data/file") as file:
            file.write(b"n" * 100_000)
    assert raised.value.filename == tempfile.gettempdir()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_trouble_with_a_disk_is_named_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError) as raised:
        storage.write_bytes(str(tmp_path / "file"), b"new")
    assert raised.value.filename == str(tmp_path / "file")
    assert storage.is_transient(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_what_is_written_keep_their_names(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="another"),
        storage.create(str(tmp_path / "file")),
    ):
        (tmp_path / "another").read_bytes()


def sizes(found: dict[str, storage.Found]) -> dict[str, int]:
    return {name: file.size for name, file in found.items()}


def test_find_on_a_disk(tmp_path: Path) -> None:
    for name in ("a/1.tar", "a/2.tar", "a/2.json", "b/3.tar"):
        storage.write_bytes(str(tmp_path / name), b"12345"[: int(Path(name).stem)])
    a = str(tmp_path / "a")
    assert sizes(storage.find(a, suffix=".tar")) == {f"{a}/1.tar": 1, f"{a}/2.tar": 2}
    assert sizes(storage.find(f"{a}/2.json")) == {f"{a}/2.json": 2}
    assert list(storage.find(str(tmp_path / "*" / "[23].tar"))) == [
        f"{a}/2.tar",
        str(tmp_path / "b" / "3.tar"),
    ]
    assert storage.find(f"{a}/9.tar") == {}
    assert storage.find(str(tmp_path / "no" / "*.tar")) == {}
    assert list(storage.find(f"file://{a}/1.tar")) == [f"file://{a}/1.tar"]


def test_s3_objects(bucket: Any) -> None:
    assert storage.list_names("s3://data/out") == []
    assert not storage.exists("s3://data/out/a.json")
    storage.write_bytes("s3://data/out/a.json", b"{}")
    storage.write_bytes("s3://data/out/b.txt", b"12")
    assert storage.list_names("s3://data/out") == ["a.json", "b.txt"]
    assert storage.list_names("s3://data/out", ".json") == ["a.json"]
    assert sizes(storage.find("s3://data/out", ".txt")) == {"s3://data/out/b.txt": 2}
    assert sizes(storage.find("s3://data/*/[a].json")) == {"s3://data/out/a.json": 2}
    assert storage.read_bytes("s3://data/out/b.txt") == b"12"
    storage.remove("s3://data/out/a.json")
    storage.remove("s3://data/out/a.json")
    assert storage.list_names("s3://data/out") == ["b.txt"]
    assert sizes(storage.list_files("s3://data/out")) == {"b.txt": 2}
    with pytest.raises(OSError, match=r"nothing\.tar"):
        storage.open_read("s3://data/nothing.tar")


def test_annotating_from_and_to_s3_gives_the_files_of_a_disk(bucket: Any, tmp_path: Path) -> None:
    """Identity is the URI, so the same names come out where the input root is taken off."""
    shard = sorted(SHARDS.glob("*.tar"))[0]
    bucket.upload_file(str(shard), "data", f"in/{shard.name}")
    common = ["--engine.executor", "local", "--engine.threads", "1"]
    remote = ["--input", f"s3://data/in/{shard.name}", "--input_root", "s3://data/in"]
    assert main([*common, *remote, "--output", "s3://data/out"]) == 0
    local = ["--input", str(shard), "--input_root", str(SHARDS)]
    assert main([*common, *local, "--output", str(tmp_path)]) == 0
    for folder in ("annotations", "images"):
        files = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        assert files == {
            name: storage.read_bytes(f"s3://data/out/{folder}/{name}")
            for name in storage.list_names(f"s3://data/out/{folder}")
        }


def test_shards_from_a_web_server(web: tuple[str, Path]) -> None:
    address, folder = web
    source = sorted(SHARDS.glob("*.tar"))[0]
    for name in ("whole-0.tar", "cut-1.tar"):
        (folder / name).write_bytes(source.read_bytes())
    whole, cut = find_shards([f"{address}/{{whole-0,cut-1}}.tar"])
    assert whole.size == source.stat().st_size
    with storage.open_read(whole.location) as stream:
        assert len(list(read_samples(stream))) == 64
    with storage.open_read(cut.location) as stream, pytest.raises(ShardError):
        list(read_samples(stream))
    with pytest.raises(ConfigError, match=r"no shard at .*missing\.tar"):
        find_shards([f"{address}/missing.tar"])


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path, bucket: Any) -> None:
    for place in (str(tmp_path / "file"), "s3://data/file"):
        with pytest.raises(KeyError), storage.create(place) as file:
            file.write(b"half")
            raise KeyError
        assert not storage.exists(place)
        with storage.create(place) as file:
            file.write(b"a" * files.READ_BUFFER)
            file.write(b"b")
        assert storage.read_bytes(place) == b"a" * files.READ_BUFFER + b"b"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_made_while_it_is_listed_is_no_error(tmp_path: Path) -> None:
    """pyarrow raises when the folder that it did not find is there at its second look."""
    wrong: list[Exception] = []
    places = [tmp_path / str(number) for number in range(300)]
    reached = threading.Event()

    def look() -> None:
        for place in places:
            try:
                while not storage.list_files(str(place)):
                    reached.set()
            except OSError as error:
                wrong.append(error)

    watching = threading.Thread(target=look)
    watching.start()
    for place in places:
        reached.wait(5)
        reached.clear()
        place.mkdir()
        (place / "a").touch()
    watching.join()
    assert wrong == []


def test_of_several_who_delete_a_file_none_fails(tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(300)]
    for place in places:
        place.touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(storage.remove, [str(place) for place in places for _ in range(4)]))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_neither_read_nor_taken_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="/dev/zero: is a device, and not a file"):
        storage.read_bytes("/dev/zero")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file, and not a folder"):
        storage.write_bytes(str(tmp_path / "file" / "a.png"), b"")
