"""From the bytes of a shard to images with what is wanted of them, or a reason."""

import io
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import features

from pipeline.config import DECODE_ENOUGH, AnnotateConfig
from pipeline.errors import Reject, ShardError
from pipeline.inputs.images import Picture, squash
from pipeline.inputs.naming import Naming
from pipeline.inputs.reader import Read, ShardReader, in_batches, least_for
from pipeline.inputs.samples import Rejected, Sample, Skipped
from pipeline.inputs.shards import Shard, find_shards
from pipeline.inputs.tars import RawSample
from tests.pipeline.stand_ins import MakeTar, Write

Members = list[tuple[str, bytes]]
MakeShard = Callable[[Members], Shard]


@pytest.fixture
def shard(tar: MakeTar, write_shards: Write) -> MakeShard:
    """`shard(members)`: a tar of them, found."""

    def make(members: Members) -> Shard:
        (found,) = find_shards([write_shards(a=tar(members))])
        return found

    return make


def text_of(raw: RawSample) -> str | None:
    """The sample's text is wanted; there may be none, and it may be bad."""
    text = raw.fields.get("txt")
    if text == b"bad":
        raise Reject("bad_text", "it says so itself")
    return None if text is None else text.decode()


read = ShardReader(text_of, lambda pixels: squash(pixels, 8))


FIELDS = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "JPG"]


@pytest.mark.parametrize("field", [*FIELDS, *(["avif"] if features.check("avif") else [])])
def test_a_sample_is_its_image_and_what_is_wanted_of_it(
    field: str, shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    members = [("k.txt", b"dog"), (f"k.{field}", picture(size=(40, 30)))]
    (sample,) = read(shard(members))
    assert isinstance(sample, Sample)
    assert (sample.index, sample.key, sample.height, sample.width) == (0, "k", 30, 40)
    assert (sample.pixels.shape, sample.pixels.dtype) == ((3, 8, 8), torch.uint8)
    assert sample.wanted == "dog"


def test_the_content_says_what_an_image_is_and_not_the_name(
    shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    (sample,) = read(shard([("k.txt", b"dog"), ("k.jpg", picture(format="PNG"))]))
    assert isinstance(sample, Sample)


def test_pixels_keep_their_size_where_none_is_asked_for(
    shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    at = shard([("k.txt", b"dog"), ("k.jpg", picture(size=(40, 30)))])
    (sample,) = ShardReader(text_of)(at)
    assert isinstance(sample, Sample) and sample.pixels.shape == (3, 30, 40)


def test_a_jpeg_is_decoded_at_the_scale_that_is_needed(
    shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    data = picture(size=(203, 120))
    at = shard([("a.txt", b"dog"), ("a.jpg", data), ("b.txt", b"dog"), ("b.jpg", data[:-9])])
    sample, cut = replace(read, least=30)(at)
    assert isinstance(sample, Sample) and isinstance(cut, Rejected)
    assert (sample.height, sample.width, cut.reason) == (120, 203, "undecodable")
    quarter = Picture(data, 1 << 20).pixels(30)
    assert quarter.shape == (3, 30, 51)
    assert torch.equal(sample.pixels, squash(quarter, 8))


def test_what_is_needed_follows_from_the_size_that_is_asked_for() -> None:
    assert least_for(lambda pixels: squash(pixels, 8), 2.5) == 20
    config, fit = AnnotateConfig(), lambda pixels: squash(pixels, 8)
    assert ShardReader.of(config, text_of, fit).least is None
    assert ShardReader.of(config, text_of, fit, enough=DECODE_ENOUGH).least == 8 * DECODE_ENOUGH


TEXT, JUNK = ("k.txt", b"dog"), ("k.jpg", b"junk")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([TEXT], "missing_field"),
        ([TEXT, ("k.heic", b"")], "missing_field"),
        ([TEXT, ("k.0.jpg", b""), ("k.1.jpg", b"")], "many_images"),
        ([TEXT, JUNK], "undecodable"),
        ([TEXT, ("k.jpg", b"")], "undecodable"),
        ([TEXT, JUNK, JUNK], "duplicate_field"),
        ([TEXT, ("k.jpg", bytes(1000))], "too_large"),
        ([("k.txt", b"bad"), JUNK], "bad_text"),
    ],
)
def test_what_cannot_be_used_has_a_reason(members: Members, reason: str, shard: MakeShard) -> None:
    small = ShardReader(text_of, max_sample_bytes=500)
    _, rejected = small(shard([("first.jpg", b""), *members]))
    assert isinstance(rejected, Rejected)
    assert (rejected.index, rejected.key, rejected.reason) == (1, "k", reason)
    assert rejected.detail


def test_a_large_image_is_rejected(shard: MakeShard, picture: Callable[..., bytes]) -> None:
    at = shard([TEXT, ("k.jpg", picture(size=(101, 100)))])
    (rejected,) = ShardReader(text_of, max_pixels=10_000)(at)
    assert rejected == Rejected(0, "k", "too_large", "101x100 pixels", "k.jpg")


def test_a_key_is_good_for_one_sample(shard: MakeShard, picture: Callable[..., bytes]) -> None:
    members = [(f"{key}.jpg", picture()) for key in ("a", "b", "a", "b")]
    found = list(ShardReader(lambda raw: raw.key)(shard(members)))
    assert [type(sample) for sample in found] == [Sample, Sample, Rejected, Rejected]
    assert {sample.reason for sample in found if isinstance(sample, Rejected)} == {"duplicate_key"}


def test_of_what_is_not_wanted_the_image_is_not_decoded(shard: MakeShard) -> None:
    assert list(read(shard([JUNK, ("l.jpg", b"junk")]))) == [Skipped(0, "k"), Skipped(1, "l")]


def test_a_limit_ends_the_shard(shard: MakeShard) -> None:
    at = shard([(f"{i}.jpg", b"") for i in range(5)])
    assert len(list(ShardReader(text_of, limit_samples=2)(at))) == 2


def test_samples_are_decoded_together_and_come_in_order(
    shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    together = threading.Barrier(2, timeout=30)

    def wait(raw: RawSample) -> str:
        together.wait()
        return raw.key

    keys = [f"{i}" for i in range(6)]
    found = ShardReader(wait)(shard([(f"{key}.jpg", picture()) for key in keys]))
    assert [sample.key for sample in found] == keys


# --- batches


def samples(kinds: str) -> list[Read[str]]:
    """A letter each: s for a sample, r for a rejected one, n for one of which nothing is wanted."""
    pixels = torch.zeros(3, 1, 1, dtype=torch.uint8)
    made: dict[str, Callable[[int], Read[str]]] = {
        "s": lambda i: Sample(i, f"{i}", 1, 1, pixels, ""),
        "r": lambda i: Rejected(i, f"{i}", "", ""),
        "n": lambda i: Skipped(i, f"{i}"),
    }
    return [made[kind](i) for i, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "sizes"),
    [
        ("", []),
        ("ssss", [2, 2]),
        ("sss", [2, 1]),
        ("rsnsrrsn", [4, 4]),
        ("rrr", [3]),
        ("ssr", [2, 1]),
    ],
)
def test_what_cannot_be_used_takes_no_place_in_a_batch(kinds: str, sizes: list[int]) -> None:
    read = samples(kinds)
    batches = list(in_batches(read, 2))
    assert [len(batch) for batch in batches] == sizes
    assert [sample for batch in batches for sample in batch] == read


def test_of_a_shard_that_is_cut_short_the_beginning_comes_first(
    tar: MakeTar, write_shards: Write, picture: Callable[..., bytes]
) -> None:
    images = [picture(i) for i in range(4)]
    data = tar([(f"{i}.jpg", image) for i, image in enumerate(images)])
    whole = sum(512 + -(-len(image) // 512) * 512 for image in images[:3])  # header and blocks
    (cut,) = find_shards([write_shards(a=data[: whole + 1000])])
    seen = []
    with pytest.raises(ShardError):
        for batch in in_batches(ShardReader(lambda raw: raw.key)(cut), 2):
            seen.append([sample.key for sample in batch])
    assert seen == [["0", "1"], ["2"]]


def test_many_images_in_one_sample_are_counted_and_named(shard: MakeShard) -> None:
    at = shard([(f"photo.{number:03}.jpg", b"") for number in range(30)])
    (rejected,) = ShardReader(lambda raw: raw.key)(at)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.images) == ("many_images", 30)
    assert rejected.detail.startswith("30 images in one sample: .000.jpg, .001.jpg, ")
    assert "--key_end last_dot" in rejected.detail


def test_a_key_may_end_at_the_last_dot(shard: MakeShard, picture: Callable[..., bytes]) -> None:
    at = shard([(f"photo.{number:03}.jpg", picture()) for number in range(3)])
    found = list(ShardReader(lambda raw: raw.key, naming=Naming(key_end="last_dot"))(at))
    assert [sample.key for sample in found] == ["photo.000", "photo.001", "photo.002"]


def test_the_field_of_the_image_can_be_said(
    shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    members = [("k.jpg", picture(size=(8, 8))), ("k.left.png", picture(size=(9, 9)))]
    ways = {"": 8, "left.png": 9}
    for image, width in ways.items():
        (sample,) = ShardReader(lambda raw: raw.key, naming=Naming(image=image))(shard(members))
        assert isinstance(sample, Sample) and sample.width == width
    (none,) = ShardReader(lambda raw: raw.key, naming=Naming(image="right.png"))(shard(members))
    assert isinstance(none, Rejected) and none.reason == "missing_field"
    assert none.detail == "no image (.right.png) among .jpg, .left.png"


def test_images_of_a_run_are_read_by_its_settings(
    shard: MakeShard, picture: Callable[..., bytes]
) -> None:
    config = AnnotateConfig(
        max_pixels=100, max_sample_bytes=5000, key_end="last_dot", image_field="png"
    )
    members = [
        *(("a.0.jpg", b"none"), ("a.0.png", picture(size=(10, 10), format="PNG"))),
        ("a.1.png", picture(size=(11, 10), format="PNG")),
        ("b.0.png", bytes(5001)),
    ]
    (first, *others) = ShardReader.of_run(config.identity(), lambda raw: raw.key)(shard(members))
    assert isinstance(first, Sample) and first.wanted == "a.0"
    assert [each.reason for each in others if isinstance(each, Rejected)] == ["too_large"] * 2
    assert ShardReader.of_run({}, text_of) == ShardReader(text_of)  # one that is not known


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_an_image_that_is_a_link_is_a_reject(
    kind: bytes, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    """As tar stores a file of which it has another name: all that is left of it is the name."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("a.jpg", picture()), ("a.txt", b"a"), ("b.jpg", None),
                              ("b.txt", b"b"), ("c.jpg", picture()), ("c.txt", None),
                              ("latest", None), ("v1.0", None)):  # fmt: skip
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = kind, "a.jpg"
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))

    def text(raw: RawSample) -> str:
        if "txt" not in raw.fields:
            raise Reject("missing_field", "no .txt")
        return raw.fields["txt"].decode()

    a, b, c = ShardReader(text)(find_shards([str(tmp_path)])[0])
    assert isinstance(a, Sample) and a.key == "a"
    assert isinstance(b, Rejected) and (b.key, b.file_name) == ("b", "b.jpg")
    assert isinstance(c, Rejected) and (c.key, c.file_name) == ("c", "c.jpg")
    for found, field in ((b, "jpg"), (c, "txt")):
        assert found.reason == "missing_field"
        assert found.detail.endswith(
            f".{field} is a link, which holds nothing: pack with tar --dereference "
            "--hard-dereference"
        )
