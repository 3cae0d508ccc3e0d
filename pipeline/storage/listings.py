"""What is there: files found by name, directory or pattern, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from glob import has_magic
from operator import attrgetter
from typing import NamedTuple

from pyarrow import fs

from pipeline.storage import web
from pipeline.storage.files import resolve
from pipeline.storage.locations import file_uri, is_file, is_http, is_uri, parts

SECOND = 10**9
"""In nanoseconds."""


class Found(NamedTuple):
    """What is said of a file where it is found.

    Attributes:
        size: bytes; 0 where a web server does not say.
        modified: when it was written: ns after 1970, of object stores in whole seconds, since their
            listings and lookups may differ in the rest; of a web server its `Last-Modified` or
            else its `ETag`. Empty where nothing is said.
    """

    size: int
    modified: str


def find(location: str, suffix: str = "") -> dict[str, Found]:
    """Location → what is said of it, for every file that `location` stands for, sorted by name.

    That is the file itself, the files of a directory or prefix that end in `suffix`, or what a
    glob pattern matches (`*`, `?` and `[…]`, none of which crosses a `/`). Names that begin with a
    dot are found only by patterns that do, as in a shell. An http(s) server cannot be asked what
    it has: there, it is the file itself.

    Raises:
        FileNotFoundError: one of them is a link that leads nowhere.
    """
    if is_http(location):
        about = web.headers(location)
        if about is None:
            return {}
        written = about.get("Last-Modified") or about.get("ETag") or ""
        return {location: Found(web.size(about), str(written))}
    filesystem, path = resolve(location)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return {location: _found(filesystem, info)}
    if info.type == fs.FileType.Directory:
        found = _those(filesystem, fs.FileSelector(path), lambda at: _is_plain(at, suffix))
        return _located(location, found)
    if not has_magic(path):
        return {}
    components = path.split("/")
    fixed = next(i for i, component in enumerate(components) if has_magic(component))
    base = "/".join(components[:fixed])
    below = fs.FileSelector(base, recursive=fixed < len(components) - 1, allow_not_found=True)
    found = _those(filesystem, below, lambda at: _matches(at, path))
    return _located(location, found)


def version(location: str) -> str:
    """A text that is another one when the file is: its size and when it was written.

    A web server need not say either; then that much is not in the text.

    Raises:
        OSError: there is no such file, or it cannot be reached.
    """
    if is_http(location):
        about = web.headers(location)
        if about is not None:
            return web.version(about)
    else:
        filesystem, path = resolve(location)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            return f"{info.size} bytes, written {info.mtime_ns} ns after 1970"
    raise FileNotFoundError(f"{location}: there is no such file")


def list_names(location: str, suffix: str = "") -> list[str]:
    """Sorted names of the files directly in a directory or prefix; empty when there is none."""
    return [name for name in list_files(location) if name.endswith(suffix)]


def list_files(location: str) -> dict[str, Found]:
    """Name → what is said of it, for the files directly in a directory or prefix, sorted by name.

    Empty when there is no such place. A request for every thousand files.
    """
    filesystem, path = resolve(location)
    files = _files(filesystem, fs.FileSelector(path, allow_not_found=True))
    return {path.rpartition("/")[2]: found for path, found in files}


def listing(location: str) -> list[tuple[str, int, int]]:
    """Path, bytes and time (ns after 1970) of the files below a directory or prefix, sorted.

    Paths begin there, and have `/` between their parts.

    Raises:
        FileNotFoundError: there is no such directory.
        OSError: one of them is a link that leads nowhere.
    """
    filesystem, path = resolve(location)
    selector = fs.FileSelector(path, recursive=True)
    if dangling := _dangling(filesystem, selector, lambda at: True):
        raise OSError(f"{dangling}: is a link to what is not there")
    infos = filesystem.get_file_info(selector)
    files = [info for info in infos if info.type == fs.FileType.File]
    start = len(path.rstrip("/")) + 1
    return sorted((info.path[start:], int(info.size), int(info.mtime_ns)) for info in files)


def _files(filesystem: fs.FileSystem, selector: fs.FileSelector) -> Iterator[tuple[str, Found]]:
    """Path of every file, sorted, and what is said of it. Each info is freed as it is taken."""
    try:
        infos = filesystem.get_file_info(selector)
    except FileNotFoundError:
        if not selector.allow_not_found:
            raise
        # pyarrow did not find the directory, looked whether it is there, and by then it was.
        infos = filesystem.get_file_info(selector)
    infos.sort(key=attrgetter("path"), reverse=True)
    while infos:
        info = infos.pop()
        if info.is_file:
            yield info.path, _found(filesystem, info)


def _those(
    filesystem: fs.FileSystem, selector: fs.FileSelector, wanted: Callable[[str], bool]
) -> dict[str, Found]:
    """The files whose paths are wanted.

    Raises:
        FileNotFoundError: one of them is a link that leads nowhere, which pyarrow passes over.
    """
    if dangling := _dangling(filesystem, selector, wanted):
        raise FileNotFoundError(f"{dangling}: is a link to what is not there")
    return {path: found for path, found in _files(filesystem, selector) if wanted(path)}


def _dangling(
    filesystem: fs.FileSystem, selector: fs.FileSelector, wanted: Callable[[str], bool]
) -> str:
    """The first wanted link to what is not there; empty without one, and on object stores."""
    if isinstance(filesystem, fs.LocalFileSystem):
        for folder, _, names in os.walk(selector.base_dir):
            for name in names:
                path: str = os.path.join(folder, name)
                if wanted(path) and os.path.islink(path) and not os.path.exists(path):
                    return path
            if not selector.recursive:
                break
    return ""


def _is_plain(path: str, suffix: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(suffix) and not name.startswith(".")


def _matches(path: str, pattern: str) -> bool:
    """Whether every part of a path is matched, a hidden one by a part that begins with a dot."""
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(
        fnmatchcase(name, want) and (not name.startswith(".") or want.startswith("."))
        for name, want in zip(names, wanted, strict=True)
    )


def _found(filesystem: fs.FileSystem, info: fs.FileInfo) -> Found:
    if info.mtime_ns is None:
        return Found(int(info.size), "")
    step = 1 if isinstance(filesystem, fs.LocalFileSystem) else SECOND
    return Found(int(info.size), str(info.mtime_ns // step * step))


def _located(location: str, files: dict[str, Found]) -> dict[str, Found]:
    """The files of one filesystem as locations of the form in which `location` was given."""
    if not is_uri(location):
        return files
    if is_file(location):
        return {file_uri(path): found for path, found in files.items()}
    bucket = parts(location)  # and how it is reached
    return {
        bucket._replace(path=path.partition("/")[2]).joined(): found
        for path, found in files.items()
    }
