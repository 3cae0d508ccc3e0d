"""The samples of a shard, read so that nothing is lost.

They follow WebDataset's rules, if a run has no other (`Naming`): adjacent tar members that share
the part of their name before the first dot (of the base name) make one sample, and what follows
that dot is the field.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pipeline import storage
from pipeline.errors import ShardError
from pipeline.inputs.naming import AS_WEBDATASET, Naming

TAR_BLOCK = 512
LARGEST_MEMBER = 64 << 30  # bytes; more is a damaged header
TAR_RECORD = 20 * TAR_BLOCK
END_OF_ARCHIVE = 2 * TAR_BLOCK
PIECE = 16 << 20
"""Bytes that are asked for at once."""
KINDS = {
    b"\x1f\x8b": "compressed (gzip): unpack it",
    b"BZh": "compressed (bzip2): unpack it",
    b"\xfd7zXZ\0": "compressed (xz): unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd): unpack it",
    b"PK\x03\x04": "a zip: pack its files as a tar",
    b"PAR1": "a Parquet file: pack its images as a tar",
    b"<": "a web page, or another text that begins with <",
    b"version ": "a pointer of Git LFS: fetch the file",
}
"""What lies where a tar should, by its first bytes."""


@dataclass
class RawSample:
    """The members of one sample as they lie in the tar.

    Attributes:
        index: position among the samples of the shard, from 0.
        key: the common part of the member names, directories included.
        fields: lower-cased extension → bytes.
        members: lower-cased extension → name in the tar, of fields that were not read too.
        repeated: a field that the sample holds twice, if any.
        too_large: a field that was not read, because of the sample's size, if any.
        links: extensions of members that are links, which hold nothing.
        naming: the rules by which its members belong together.
    """

    index: int
    key: str
    fields: dict[str, bytes]
    members: dict[str, str] = field(default_factory=dict)
    repeated: str | None = None
    too_large: str | None = None
    links: list[str] = field(default_factory=list)
    naming: Naming = AS_WEBDATASET


def read_samples(
    stream: storage.Stream, max_bytes: int = 1 << 40, naming: Naming = AS_WEBDATASET
) -> Iterator[RawSample]:
    """The samples of a tar stream, in order, with proof at the end that none was lost.

    Python's tarfile takes a short or damaged header for the end of the archive. So after the last
    sample the rest of the stream is read. From where tarfile stopped on it has to be what ends an
    archive: whole blocks of zeros, at least two, and no more than fill a record. (So an archive
    that has lost nothing but its closing zeros is refused too: it cannot be told from one that
    was cut between two members.)

    Args:
        stream: an uncompressed tar.
        max_bytes: a member that makes its sample larger than this is passed over unread.
        naming: which members belong together.

    Raises:
        ShardError: the archive is truncated, damaged or not a tar. Samples yielded before were
            read whole, but there may be more of them.
    """
    sample: RawSample | None = None
    links: dict[str, list[str]] = {}  # key → of those before its sample
    size = 0
    for name, content in _members(stream):
        if (split := naming.split(name)) is None:
            continue
        key, part = split
        if content is None and naming.image_field((part,)) is None:
            if sample is not None and key == sample.key:
                sample.links.append(part)
            else:
                links.setdefault(key, []).append(part)
            continue
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            number = 0 if sample is None else sample.index + 1
            sample = RawSample(number, key, {}, links=links.pop(key, []), naming=naming)
            links.clear()
            size = 0
        sample.members.setdefault(part, name)
        if content is None:
            sample.links.append(part)
            continue
        size += content.size
        if size > max_bytes:
            sample.too_large = part
            continue
        if part in sample.fields:
            sample.repeated = part
        sample.fields[part] = content.read()
    if sample is not None:
        yield sample


@dataclass(frozen=True)
class _Content:
    """The bytes of a member, to be read before the next one is asked for, or not at all.

    Past tarfile, whose streams copy them four times.
    """

    size: int
    start: int
    source: _Source

    def read(self) -> bytes:
        with _readable():
            self.source.seek(self.start)
            data = self.source.read(self.size)
            if len(data) < self.size:
                raise tarfile.ReadError("unexpected end of data")
            return data


def _members(stream: storage.Stream) -> Iterator[tuple[str, _Content | None]]:
    """Name and content of every regular file in the archive, and None for that of a link.

    Sparse files are left out: a few bytes of them stand for as many zeros as they like.
    """
    source = _Source(stream)
    with (
        _readable(source),
        tarfile.open(
            fileobj=cast(BinaryIO, source),
            mode="r:",
            encoding="utf-8",
            errors="backslashreplace",  # tarfile's own surrogates could not be written out again
        ) as archive,
    ):
        source.start = b""  # it is a tar, whatever its first name begins with
        for member in archive:
            if not 0 <= member.size <= LARGEST_MEMBER:
                raise tarfile.ReadError(f"a member of {member.size} bytes")
            if member.isreg() and not member.issparse():
                yield member.name, _Content(member.size, member.offset_data, source)
            elif member.islnk() or member.issym():
                yield member.name, None
            archive.members.clear()  # type: ignore[attr-defined]  # or they pile up
        stopped = archive.offset
        source.drain()
    rest = source.length - stopped
    if rest < END_OF_ARCHIVE or rest % TAR_BLOCK:
        raise ShardError(f"cut short: {source.length} bytes do not end like a tar")
    if rest > min(source.zeros, TAR_RECORD + TAR_BLOCK):
        raise ShardError(f"damaged: no valid header at byte {stopped} of {source.length}")


@contextmanager
def _readable(source: _Source | None = None) -> Iterator[None]:
    """Turn whatever reading an archive may raise into the one error that says so."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if source is not None and (kind := source.kind()):
            raise ShardError(f"not a tar, but {kind}") from error
        raise ShardError(f"not a readable tar, or cut short: {error}") from error


class _Source:
    """A stream as tarfile wants a file, which it goes through from front to back.

    It goes back by one byte at the most: to look whether the last one of a member is there.

    Attributes:
        length: bytes that have been read.
        zeros: how many of them, at the end, are zero.
        start: the first of them, until they are known to begin a tar.
    """

    def __init__(self, stream: storage.Stream) -> None:
        self._stream = stream
        self.length = 0
        self.zeros = 0
        self.start = b""
        self._last = b""
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        self._at = position

    def read(self, size: int) -> bytes:
        if size < 0:  # a damaged header; a stream would read all that it has
            raise ValueError(f"{size} bytes are wanted")
        back = self.length - self._at
        if back > len(self._last):
            raise ValueError(f"byte {self._at} is wanted, and {self.length} have been read")
        if back > 0:
            again = self._last[:size]
            data = again + self._forward(size - len(again))
            self._at += len(data)
            return data
        while self.length < self._at:
            if not self._forward(min(PIECE, self._at - self.length)):
                return b""
        data = self._forward(size)
        self._at = self.length
        return data

    def kind(self) -> str:
        """What begins so, if it is one of the things that people take for a tar; else empty."""
        return next((kind for start, kind in KINDS.items() if self.start.startswith(start)), "")

    def drain(self) -> None:
        while self._forward(PIECE):
            pass

    def _forward(self, size: int) -> bytes:
        """The next bytes, in pieces: a damaged header may ask for more than there is memory."""
        data = self._next(min(size, PIECE))
        if size <= PIECE or len(data) < PIECE:
            return data
        pieces = [data]
        while len(pieces[-1]) == PIECE and (size := size - PIECE):
            pieces.append(self._next(min(size, PIECE)))
        return b"".join(pieces)

    def _next(self, size: int) -> bytes:
        data = self._stream.read(size) if size else b""
        if data:
            self.start = self.start if self.length else data[:8]
            self.length += len(data)
            content = len(data.rstrip(b"\0")) if data[-1] == 0 else len(data)
            self.zeros = len(data) - content + (0 if content else self.zeros)
            self._last = data[-1:]
        return data
