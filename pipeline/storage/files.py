"""Bytes in and out of local disks and object stores, through `pyarrow.fs`.

Objects are written whole or not at all: the complete bytes exist in memory first, because a pyarrow
output stream that is closed by an exception publishes what it holds. Requests to object stores and
web servers that fail for a reason that passes are made again for some seconds; what is raised then
is for the run to judge (`is_transient`).
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import tempfile
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, cast, runtime_checkable

import pyarrow as pa
from pyarrow import fs

from pipeline.storage import object_stores, web
from pipeline.storage.locations import (
    is_file,
    is_http,
    local_path,
    parts,
    public,
)

READ_BUFFER = 8 << 20
"""Bytes per request. tarfile reads 10 KB at a time, which unbuffered is one S3 request each."""
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors of writing, and of nothing else."""


@runtime_checkable
class Stream(Protocol):
    """What can be read from front to back: a file, or a stream of pyarrow."""

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, fewer at the end; all that are left without a size."""

    def __enter__(self) -> Stream: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object: ...


def open_read(location: str) -> Stream:
    """A buffered binary stream over the object.

    Raises:
        OSError: the object does not exist or cannot be reached; `IsADirectoryError` for a folder,
            `FileNotFoundError` for a device, which may have no end.
    """
    if is_http(location):
        return web.open_read(location)
    filesystem, path = resolve(location)
    if isinstance(filesystem, fs.LocalFileSystem) and _is_device(path):
        raise FileNotFoundError(f"{location}: is a device, and not a file")
    try:
        return cast(Stream, filesystem.open_input_stream(path, buffer_size=READ_BUFFER))
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(filesystem, fs.LocalFileSystem) and os.path.isdir(path):
            raise IsADirectoryError(f"{location}: is a directory, and not a file") from error
        raise


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # who opens it says what is wrong
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def exists(location: str) -> bool:
    """Whether there is a file at `location`."""
    filesystem, path = resolve(location)
    if isinstance(filesystem, fs.LocalFileSystem):
        return os.path.isfile(path)
    try:
        # One request; get_file_info would go on to ask whether there is a folder of the name.
        filesystem.open_input_file(path).close()
    except FileNotFoundError:
        return False
    return True


def read_bytes(location: str) -> bytes:
    """The whole object."""
    with open_read(location) as stream:
        return stream.read()


def write_bytes(location: str, data: bytes) -> None:
    """Create or replace the object in one step: a reader sees the old bytes or the new ones."""
    filesystem, path = resolve(location)
    if isinstance(filesystem, fs.LocalFileSystem):
        with _replacing(Path(path)) as file:
            file.write(data)
        return
    _send(location, data)


@contextmanager
def create(location: str) -> Iterator[BinaryIO]:
    """The same for an object of any size, which the body writes from front to back.

    It is there, whole, when the body has ended; an error in the body leaves what was there before.
    On its way to an object store it waits on the local disk until it is complete.
    """
    filesystem, path = resolve(location)
    if isinstance(filesystem, fs.LocalFileSystem):
        with _replacing(Path(path)) as file:
            yield file
        return
    with tempfile.TemporaryFile() as waiting:
        with _naming(Path(tempfile.gettempdir()), FULL):
            yield cast(BinaryIO, waiting)
            waiting.flush()
        is_empty = os.fstat(waiting.fileno()).st_size == 0  # which cannot be mapped
        _send(location, b"" if is_empty else mmap(waiting.fileno(), 0, access=ACCESS_READ))


def remove(location: str) -> None:
    """Delete the object if it exists."""
    filesystem, path = resolve(location)
    # An object store is asked by the deletion itself.
    if not isinstance(filesystem, fs.LocalFileSystem) or os.path.isfile(path):
        with suppress(FileNotFoundError):  # also if somebody else was faster
            filesystem.delete_file(path)


def resolve(location: str, in_parts: bool = False) -> tuple[fs.FileSystem, str]:
    """The filesystem that holds `location`, and the path inside it.

    Args:
        location: a path or URI.
        in_parts: for objects that are too large to be written by one request.

    Raises:
        FileNotFoundError: there is no such kind of storage, or can be no such name.
    """
    if "\0" in location or not _is_utf8(location):
        raise FileNotFoundError(f"{public(location)!r}: names are UTF-8 without null characters")
    if is_file(location):
        return fs.LocalFileSystem(), local_path(location)
    taken = parts(location)
    if not taken.host.rpartition("@")[2]:
        raise FileNotFoundError(f"{public(location)}: names no bucket")
    filesystem, base = _filesystem(taken._replace(path="").joined(), in_parts)
    return filesystem, f"{base}/{taken.path}".rstrip("/")


@functools.cache
def _filesystem(root: str, in_parts: bool) -> tuple[fs.FileSystem, str]:
    """The filesystem of a bucket, and what its paths begin with.

    One for all threads: each has connections of its own to open, and those of several, made for a
    request each, have been seen to wait for one another (39 ms per object instead of 5).
    """
    try:
        # The host alone: pyarrow's parser refuses what object names may well hold, such as `[`.
        return object_stores.connect(root, in_parts)
    except pa.ArrowInvalid as error:
        raise FileNotFoundError(f"{public(root)}: {error}") from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _send(location: str, data: bytes | mmap) -> None:
    """Write an object, whole or not at all.

    pyarrow closes a stream that nobody closes, and so publishes what it has been given until then:
    hence all of it at once, and in another thread, where no signal raises anything in between.
    """
    with ThreadPoolExecutor(1) as sender:
        sender.submit(_put, location, data).result()


def _put(location: str, data: bytes | mmap) -> None:
    # An upload in parts has to have begun when the stream is there: if one cannot begin later,
    # pyarrow publishes an object without content.
    filesystem, path = resolve(location, in_parts=len(data) >= object_stores.PART)
    stream = filesystem.open_output_stream(path)
    stream.write(data)
    stream.close()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place when the body has written it."""
    with _naming(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            why = "is a file, and not a folder"
            raise NotADirectoryError(errno.ENOTDIR, why, error.filename) from error
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            with _naming(path, FULL):  # the body may also read, and fail at that
                yield stream
            with _naming(path):
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
        with _naming(path):
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # what failed first is what is wrong
            os.unlink(temporary)
        raise


@contextmanager
def _naming(path: Path, numbers: Container[int] | None = None) -> Iterator[None]:
    """Say of which file an error is; with `numbers`, only if it has one of them and no name."""
    try:
        yield
    except OSError as error:
        if numbers is not None and (error.errno not in numbers or error.filename is not None):
            raise
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
