"""The reader that must not lose a sample in silence."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pyarrow as pa
import pytest
import webdataset as wds
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ShardError
from pipeline.inputs.naming import Naming
from pipeline.inputs.tars import RawSample, read_samples

BLOCK, RECORD = 512, 10240
MakeTar = Callable[..., bytes]


def read(data: bytes) -> list[RawSample]:
    return list(read_samples(io.BytesIO(data)))


def read_until_error(data: bytes) -> tuple[list[RawSample], str]:
    """What comes before the error, and what the error says."""
    samples = []
    with pytest.raises(ShardError) as caught:
        for sample in read_samples(io.BytesIO(data)):
            samples.append(sample)
    return samples, str(caught.value)


# --- what is in them


def test_members_are_grouped_into_samples(tar: MakeTar) -> None:
    names = ["a/", "a/1.jpg", "a/1.JSON", "a/1.seg.png", "2.txt", "b.c/2.txt", "Ü.txt", "plain"]
    samples = read(tar((name, name.encode()) for name in names))
    assert [(s.index, s.key, s.fields) for s in samples] == [
        (0, "a/1", {"jpg": b"a/1.jpg", "json": b"a/1.JSON", "seg.png": b"a/1.seg.png"}),
        (1, "2", {"txt": b"2.txt"}),
        (2, "b.c/2", {"txt": b"b.c/2.txt"}),
        (3, "Ü", {"txt": "Ü.txt".encode()}),
    ]


def test_a_field_that_is_there_twice_is_remembered(tar: MakeTar) -> None:
    dotted = [("img.0.jpg", b"0"), ("img.1.jpg", b"1"), ("img.0.JPG", b"2"), ("next.jpg", b"")]
    first, second = read(tar(dotted))
    assert (first.key, first.repeated, second.repeated) == ("img", "0.jpg", None)


def test_a_key_that_comes_back_is_another_sample(tar: MakeTar) -> None:
    samples = read(tar([("a.jpg", b""), ("b.jpg", b""), ("a.json", b"")]))
    assert [sample.key for sample in samples] == ["a", "b", "a"]


def test_an_archive_without_members_has_no_samples(tar: MakeTar) -> None:
    assert read(tar([])) == []


def test_links_and_notes_about_the_archive_are_no_fields(tar: MakeTar) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        writer.addfile(link)
        for name in ("__notes__/x.json", "a.json"):
            writer.addfile(tarfile.TarInfo(name))
    assert [(s.key, list(s.fields)) for s in read(archive.getvalue())] == [("a", ["json"])]


def test_a_name_that_is_not_utf8_can_be_written_out_again() -> None:
    archive = io.BytesIO()
    with tarfile.open(
        fileobj=archive, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as writer:
        writer.addfile(tarfile.TarInfo("caf\xe9.jpg"))
    (sample,) = read(archive.getvalue())
    assert sample.key == "caf\\xe9"


MEMBER_NAMES = st.lists(
    st.builds(
        "{}{}.{}".format,
        st.sampled_from(["", "d/", "d.e/", "./"]),
        st.sampled_from(["a", "b", "é", "x" * 120]),
        st.sampled_from(["jpg", "JSON", "txt", "seg.png", "npy"]),
    ),
    max_size=12,
    unique_by=str.lower,
)
CONTENTS = st.binary(max_size=1100)
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


@given(st.data(), MEMBER_NAMES, FORMATS)
def test_every_member_is_in_a_sample_as_webdataset_has_it(
    tar: MakeTar, data: st.DataObject, names: list[str], format: int
) -> None:
    members = [(name, data.draw(CONTENTS)) for name in names]
    archive = tar(members, format)
    samples = read(archive)
    seen = [(f"{s.key}.{field}", content) for s in samples for field, content in s.fields.items()]
    assert sorted(seen) == sorted(
        (k + n[len(k) :].lower(), c) for n, c in members for k in [key(n)]
    )
    source = [{"url": "x", "stream": io.BytesIO(archive)}]
    theirs = [
        {k: v for k, v in sample.items() if k != "__url__"}
        for sample in wds.tariterators.group_by_keys(wds.tariterators.tar_file_expander(source))
    ]
    assert [{"__key__": s.key, **s.fields} for s in samples] == theirs
    assert [s.index for s in samples] == list(range(len(samples)))


def key(name: str) -> str:
    """The part of a member's name before the first dot of its base name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


# --- damage


def members(count: int = 8) -> list[tuple[str, bytes]]:
    """Samples of two members, each of a header and one block."""
    return [
        (f"{i:03}.{ext}", f"{i} {ext}".encode()) for i in range(count) for ext in ("jpg", "json")
    ]


@pytest.fixture
def whole(tar: MakeTar) -> bytes:
    """16 members of 1024 bytes each, and the end of the archive."""
    archive = tar(members())
    assert len(archive) == 2 * RECORD
    return archive


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut at a sample": lambda tar: tar[: 6 * 1024],
    "cut between jpg and json": lambda tar: tar[: 7 * 1024],
    "cut inside a header": lambda tar: tar[: 7 * 1024 + 100],
    "cut after a header": lambda tar: tar[: 7 * 1024 + 512],
    "cut inside data": lambda tar: tar[: 7 * 1024 + 514],
    "cut after data, before padding": lambda tar: tar[: 7 * 1024 + 520],
    "header damaged in the middle": lambda tar: flipped(tar, 7 * 1024 + 20),
    "header damaged near the end": lambda tar: flipped(tar, 15 * 1024 + 20),
    "header zeroed": lambda tar: tar[: 7 * 1024] + bytes(512) + tar[7 * 1024 + 512 :],
    "rest zeroed": lambda tar: tar[: 7 * 1024] + bytes(9 * 1024) + tar[16 * 1024 :],
    "no end blocks": lambda tar: tar[: 16 * 1024],
    "one end block": lambda tar: tar[: 16 * 1024 + 512],
    "odd length": lambda tar: tar + b"\0",
    "odd length inside the end": lambda tar: tar[:-1],
    "something after the end": lambda tar: tar + b"x" * 512,
    "two archives": lambda tar: tar + tar,
    "blocks of zeros without end": lambda tar: tar + bytes(40 * RECORD),
    "not a tar": lambda tar: b"\x89PNG" * 4096,
    "text": lambda tar: b"<html>404</html>",
    "compressed": lambda tar: gzip.compress(tar),
    "empty": lambda tar: b"",
    "a negative size": lambda tar: tar[:1024] + sized(-4096) + tar[1024 + 512 :],
    "a size of -1": lambda tar: tar[:1024] + sized(-1) + tar[1024 + 512 :],
    "a long name of a negative size": lambda tar: (
        tar[:1024] + sized(-600, tarfile.GNUTYPE_LONGNAME) + tar[1024 + 512 :]
    ),
    "a size beyond the end": lambda tar: tar[:1024] + sized(1 << 62) + tar[1024 + 512 :],
}  # fmt: skip


def sized(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A valid header of a file of any size."""
    member = tarfile.TarInfo("000.json")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_an_error_and_no_half_sample_comes_before_it(
    whole: bytes, damage: Callable[[bytes], bytes]
) -> None:
    intact = read(whole)
    samples, message = read_until_error(damage(whole))
    assert samples == intact[: len(samples)]
    assert "\n" not in message


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [-1, -511, -600, -1536, -4096])
def test_a_negative_size_never_asks_for_all_that_is_left(
    tar: MakeTar, size: int, kind: bytes
) -> None:
    class Asked(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None and size >= 0, "all that is left would lie in memory"
            return super().read(size)

    whole = tar(members())
    with pytest.raises(ShardError):
        list(read_samples(Asked(whole[:1024] + sized(size, kind) + whole[1024 + 512 :])))


def test_a_sample_knows_its_links_before_it_begins() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for name in ("a.json", "a.jpg", "b.json", "a.txt", "b.txt", "b.jpg", "c.jpg"):
            member = tarfile.TarInfo(name)
            if name.endswith(".json"):
                member.type, member.linkname = tarfile.SYMTYPE, "/elsewhere"
            writer.addfile(member)
    assert [(s.key, list(s.fields), s.links) for s in read(archive.getvalue())] == [
        ("a", ["jpg", "txt"], ["json"]),
        ("b", ["txt", "jpg"], ["json"]),
        ("c", ["jpg"], []),
    ]


def test_damage_costs_no_sample_before_it(whole: bytes) -> None:
    samples, _ = read_until_error(DAMAGE["cut between jpg and json"](whole))
    assert [sample.key for sample in samples] == ["000", "001", "002"]


@given(st.data(), MEMBER_NAMES, FORMATS)
def test_a_cut_never_looks_like_the_end(
    tar: MakeTar, data: st.DataObject, names: list[str], format: int
) -> None:
    archive = tar([(name, data.draw(CONTENTS)) for name in names], format)
    intact = read(archive)
    cut = data.draw(st.integers(0, len(archive) - 1))
    end = len(archive.rstrip(b"\0")) + 2 * BLOCK  # no archive ends before
    try:
        samples = read(archive[:cut])
    except ShardError:
        return
    # Padding of the last record may be missing: nothing is lost with it.
    assert cut >= end and cut % BLOCK == 0 and samples == intact


@given(st.data(), FORMATS)
def test_a_flipped_header_byte_never_loses_a_sample_in_silence(
    tar: MakeTar, data: st.DataObject, format: int
) -> None:
    long = ("x" * 120 + ".jpg", b"long")  # takes a header of its own for the name
    archive = tar([*members(3), long, *members(1)], format)
    headers = [
        position
        for position in range(0, len(archive), BLOCK)
        if archive[position + 257 : position + 262] == b"ustar"
    ]
    position = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, BLOCK - 1))
    value = data.draw(st.integers(0, 255))
    damaged = archive[:position] + bytes([value]) + archive[position + 1 :]
    try:
        samples = read(damaged)
    except ShardError:
        return
    assert samples == read(archive)


@given(st.data())
def test_random_damage_raises_nothing_but_shard_errors(tar: MakeTar, data: st.DataObject) -> None:
    archive = bytearray(tar([*members(2), ("ü" * 80 + ".jpg", b"")], tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(archive))
    except ShardError:
        pass


def test_what_a_mac_adds_tears_nothing_apart(tar: MakeTar) -> None:
    names = [
        *("train/a.jpg", "train/._a.jpg", "train/a.json", "train/.DS_Store"),
        *("train/b.jpg", "__MACOSX/train/._b.jpg", "__MACOSX/train/b.jpg", "train/b.json"),
        *("._c.jpg", "c.jpg", "._c.json", "c.json", ".hidden.jpg"),
    ]
    samples = read(tar((name, b"") for name in names))
    assert [(sample.key, sorted(sample.fields)) for sample in samples] == [
        (key, ["jpg", "json"]) for key in ("train/a", "train/b", "c")
    ]


def test_keys_may_end_at_the_last_dot(tar: MakeTar) -> None:
    names = ["v1.0/photo.000.jpg", "v1.0/photo.000.json", "v1.0/photo.001.JPG", "._x.1.jpg", "no"]
    data = tar((name, b"") for name in names)
    found = read_samples(io.BytesIO(data), naming=Naming("last_dot"))
    assert [(sample.key, sorted(sample.fields)) for sample in found] == [
        ("v1.0/photo.000", ["jpg", "json"]),
        ("v1.0/photo.001", ["jpg"]),
    ]
    assert [sample.key for sample in read(data)] == ["v1.0/photo"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(bytes(RECORD), mtime=0), "compressed (gzip)"),
        (bz2.compress(bytes(RECORD)), "compressed (bzip2)"),
        (lzma.compress(bytes(RECORD)), "compressed (xz)"),
        (pa.compress(bytes(RECORD), "zstd", asbytes=True), "compressed (zstd)"),
        (b"PK\x03\x04" + bytes(RECORD), "a zip"),
        (b"<html>" + bytes(RECORD), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n" * 20, "a pointer of Git LFS"),
    ],
    ids=["gz", "bz2", "xz", "zst", "zip", "html", "lfs"],
)
def test_what_is_taken_for_a_tar_is_called_what_it_is(data: bytes, kind: str) -> None:
    _, why = read_until_error(data)
    assert why.startswith(f"not a tar, but {kind}")


def test_the_first_name_of_a_damaged_tar_says_nothing_about_its_kind(tar: MakeTar) -> None:
    samples, why = read_until_error(tar([("<a>.jpg", bytes(3 * BLOCK))])[: 2 * BLOCK])
    assert not samples and "web page" not in why
