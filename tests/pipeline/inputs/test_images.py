"""Pixels of every kind of image, and no pixels of what is not one."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import Reject
from pipeline.inputs import images
from pipeline.inputs.images import Picture, decode, squash

LIMIT = 1 << 20


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(mode: str, size: tuple[int, int] = (37, 23)) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, bands), dtype=np.uint8)
    layers = [Image.fromarray(coarse[..., band]).resize(size) for band in range(bands)]
    return Image.merge(mode, layers) if bands > 1 else layers[0]


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def pixels_of(data: bytes) -> np.ndarray:
    pixels = decode(data, LIMIT)
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy()


KINDS = {
    "jpeg": (noise("RGB"), "JPEG", {}),
    "jpeg without subsampling": (noise("RGB"), "JPEG", {"subsampling": 0, "quality": 95}),
    "progressive jpeg": (noise("RGB"), "JPEG", {"progressive": True}),
    "grey jpeg": (noise("L"), "JPEG", {}),
    "cmyk jpeg": (noise("CMYK"), "JPEG", {}),
    "png": (noise("RGB"), "PNG", {}),
    "grey png": (noise("L"), "PNG", {}),
    "black and white png": (noise("L").convert("1"), "PNG", {}),
    "palette png": (noise("RGB").quantize(16), "PNG", {}),
    "palette png with a gap": (noise("RGB").quantize(16), "PNG", {"transparency": 3}),
    "png with alpha": (noise("RGBA"), "PNG", {}),
    "grey png with alpha": (noise("LA"), "PNG", {}),
    "webp": (noise("RGB"), "WEBP", {}),
    "webp with alpha": (noise("RGBA"), "WEBP", {"lossless": True}),
    "one pixel": (noise("RGB", (1, 1)), "JPEG", {}),
}  # fmt: skip


@pytest.mark.parametrize("image, format, options", KINDS.values(), ids=KINDS.keys())
def test_pixels_are_those_of_pillow(
    image: Image.Image, format: str, options: dict[str, object]
) -> None:
    data = encoded(image, format, **options)
    np.testing.assert_array_equal(pixels_of(data), pillow(data))


def test_a_palette_with_several_transparent_colours_keeps_its_colours() -> None:
    image = noise("RGB").quantize(16)
    data = encoded(image, "PNG", transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(pixels_of(data), np.asarray(image.convert("RGB")))


def test_alpha_is_dropped() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putdata([(10, 20, 30, 0), (40, 50, 60, 255)])
    assert pixels_of(encoded(image, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_of_16_bits_the_upper_eight_are_kept() -> None:
    grey = np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        pixels = pixels_of(encoded(Image.fromarray(grey), format))
        assert pixels[..., 0].tolist() == [[0, 0, 1, 0x12, 0xFF]]
        assert (pixels[..., :1] == pixels).all()


def test_of_16_bits_per_colour_the_upper_eight_are_kept() -> None:
    row = struct.pack(">B6H", 0, 0x1234, 0x00FF, 0xFF00, 0x0100, 0xFFFF, 0)
    assert pixels_of(png(2, 1, row, bits=16)).tolist() == [[[0x12, 0, 0xFF], [1, 0xFF, 0]]]


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at it
    image = noise("RGB", (20, 10))
    assert pixels_of(encoded(image, "JPEG", exif=exif)).shape == (10, 20, 3)
    turned = encoded(image, "PNG", exif=exif)
    np.testing.assert_array_equal(pixels_of(turned), np.asarray(image))


# --- at the scale that is needed


@pytest.mark.parametrize(
    ("size", "least", "scale"),
    [
        ((4000, 3000), 448, 4),
        ((3000, 4000), 448, 4),
        ((3584, 4000), 448, 8),
        ((3583, 4000), 448, 4),
        ((8000, 8000), 10, 8),
        ((640, 480), 240, 2),
        ((640, 480), 241, 1),
        ((640, 480), 9000, 1),
        ((640, 480), None, 1),
    ],
)
def test_the_shorter_side_keeps_what_is_needed(
    size: tuple[int, int], least: int | None, scale: int
) -> None:
    picture = Picture(encoded(Image.new("L", size), "JPEG"), 1 << 30)
    assert picture.scale(least) == scale
    assert (picture.width, picture.height) == size


@pytest.mark.parametrize("kind", [name for name in KINDS if "jpeg" in name] + ["mpo"])
@pytest.mark.parametrize("size", [(320, 240), (203, 331)])
def test_a_smaller_jpeg_is_the_same_picture(kind: str, size: tuple[int, int]) -> None:
    image, format, options = KINDS.get(kind, (noise("RGB"), "MPO", {}))
    data = encoded(image.resize(size), format, **options)
    picture = Picture(data, LIMIT)
    assert (picture.width, picture.height) == size
    whole = squash(picture.pixels(), 24).int()
    for scale in (2, 4, 8):
        smaller = picture.pixels(min(size) // scale)
        assert smaller.shape[1:] == (-(-size[1] // scale), -(-size[0] // scale))
        assert smaller.is_contiguous() or smaller.permute(1, 2, 0).is_contiguous()
        difference = (squash(smaller, 24) - whole).abs().float()
        assert difference.mean() < 1.5  # grey levels


@pytest.mark.parametrize("width", [200, 201, 203, 207])
def test_what_lies_where_stays_there(width: int) -> None:
    """A ramp shows by its grey how far it was moved; the last pixels of 207 fill 7/8 of a block."""
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)
    data = encoded(Image.fromarray(np.tile(ramp, (width, 1))), "JPEG", quality=100)
    picture = Picture(data, LIMIT)
    across = 255 * ((np.arange(16) + 0.5) / 16 * width - 0.5) / (width - 1)
    for scale in (1, 2, 4, 8):
        found = squash(picture.pixels(width // scale), 16)[0].numpy()
        inner = slice(1, -1)  # what is sharpened at the border is no matter of place
        assert np.abs(found[:, inner] - across[inner]).max() < 1.5


@pytest.mark.parametrize("kind", [name for name in KINDS if "jpeg" not in name])
def test_what_is_no_jpeg_is_decoded_as_it_is(kind: str) -> None:
    image, format, options = KINDS[kind]
    picture = Picture(encoded(image, format, **options), LIMIT)
    assert torch.equal(picture.pixels(1), picture.pixels())


def test_each_scale_is_decoded_once_and_on_its_own() -> None:
    data = encoded(noise("RGB", (160, 120)), "JPEG")
    picture = Picture(data, LIMIT)
    assert picture.pixels(60) is picture.pixels(31)  # half
    assert torch.equal(picture.pixels(), decode(data, LIMIT))
    assert torch.equal(picture.pixels(30), Picture(data, LIMIT).pixels(30))


@pytest.mark.parametrize("left", [0.3, 0.9, -2, -1])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_that_is_cut_short_is_rejected_at_any_scale(
    left: float, options: dict[str, object]
) -> None:
    data = encoded(noise("RGB", (200, 150)), "JPEG", **options)
    cut = left if isinstance(left, int) else int(left * len(data))
    for least in (None, 75, 37, 18):
        with pytest.raises(Reject, match="undecodable"):
            Picture(data[:cut], LIMIT).pixels(least)


@given(st.data(), st.sampled_from([2, 4, 8]))
def test_damage_is_judged_alike_at_any_scale(data: st.DataObject, scale: int) -> None:
    """But for what no scale hides, an image that passes whole passes made smaller."""
    damaged = bytearray(encoded(noise("RGB", (64, 48)), "JPEG"))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    def reason(least: int | None) -> str:
        try:
            Picture(bytes(damaged), LIMIT).pixels(least)
        except Reject as rejected:
            return rejected.reason
        return ""

    assert reason(48 // scale) == reason(None)


# --- what is rejected


def png(width: int, height: int, rows: bytes, bits: int = 8) -> bytes:
    """A PNG of RGB pixels, its header free to promise more than is there."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def reject(data: bytes, limit: int = LIMIT) -> Reject:
    with pytest.raises(Reject) as caught:
        decode(data, limit)
    assert "\n" not in caught.value.detail
    # An address would differ from run to run.
    assert not re.search("0x[0-9a-f]{6}", caught.value.detail)
    return caught.value


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_bomb_is_rejected_by_its_header(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise("RGB", (100, 50)), format)
    assert decode(data, 5000).shape == (3, 50, 100)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    monkeypatch.setattr(images, "decode_jpeg", lambda *_, **__: pytest.fail("was decoded"))
    rejected = reject(data, 4999)
    assert (rejected.reason, rejected.detail) == ("too_large", "100x50 pixels")


def test_what_pillow_reads_over_in_a_damaged_jpeg_is_read_over() -> None:
    """After a warning, libjpeg-turbo's interface would let pass what follows, and make it up."""
    data = encoded(noise("RGB", (200, 150)), "JPEG")
    tables = data.index(b"\xff\xc4")
    beside = data[:tables] + bytes(9) + data[tables:]  # bytes between two segments
    assert np.array_equal(pixels_of(beside), pillow(data))
    bogus = bytearray(beside)
    bogus[tables + 9 + 5] = 255  # codes of one bit in the table
    assert reject(bytes(bogus)).reason == "undecodable"
    with pytest.raises(Reject, match="undecodable"):
        Picture(bytes(bogus), LIMIT).pixels(75)


def test_a_promise_of_millions_of_pixels_is_not_believed() -> None:
    bomb = png(2**31 - 1, 2**31 - 1, b"")
    assert reject(bomb).reason == "too_large"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("left", [0, 1, 20, 0.3, 0.9])
def test_a_truncated_image_is_rejected(format: str, left: float) -> None:
    data = encoded(noise("RGB", (200, 150)), format)
    cut = left if isinstance(left, int) else int(left * len(data))
    assert reject(data[:cut]).reason == "undecodable"


def test_a_jpeg_without_its_end_marker_is_rejected() -> None:
    data = encoded(noise("RGB", (200, 150)), "JPEG")
    assert reject(data[:-2]).reason == "undecodable"


def test_formats_that_other_programs_decode_are_rejected() -> None:
    data = encoded(noise("RGB"), "EPS")
    assert reject(data).reason == "undecodable"


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"RIFF", b"\x89PNG\r\n\x1a\n"]),
)
def test_random_bytes_are_rejected(data: bytes, start: bytes) -> None:
    assert reject(start + data).reason == "undecodable"


@given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
def test_damage_gives_pixels_or_a_rejection(data: st.DataObject, format: str) -> None:
    damaged = bytearray(encoded(noise("RGB"), format))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(damaged), LIMIT)
    except Reject as rejected:
        assert rejected.reason in ("undecodable", "too_large")


# --- what the model gets


@pytest.mark.parametrize(
    ("size", "most"),
    [((500, 375), 1), ((375, 500), 1), ((96, 96), 0), ((10, 7), 1), ((64, 200), 2)],
)
def test_squash_is_that_of_pillow(size: tuple[int, int], most: int) -> None:
    image = noise("RGB", size)
    ours = squash(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1), 96)
    theirs = np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(ours.permute(1, 2, 0).numpy() - theirs)
    assert difference.max() <= most
    assert difference.mean() < 0.05


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with a chunk more before its pixels."""
    at = png.index(b"IDAT") - 4
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return png[:at] + struct.pack(">I", len(content)) + kind + content + checksum + png[at:]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"iCCP", b"icc\0\0" + zlib.compress(bytes(70 << 20))),
        (b"zTXt", b"note\0\0" + zlib.compress(bytes(70 << 20))),
        (b"iCCP", b"icc\0\0" + b"junk"),
        (b"tEXt", b"note\0" + bytes(2 << 20)),
        (b"eXIf", bytes(100)),
    ],
)
def test_notes_in_a_png_decide_about_nothing(kind: bytes, content: bytes) -> None:
    for image in (noise("RGB"), noise("RGB").quantize(16)):
        plain = encoded(image, "PNG")
        assert (pixels_of(with_chunk(plain, kind, content)) == pillow(plain)).all()


@pytest.mark.parametrize("cut", [0, 3, 8, 20, 60])
def test_a_broken_png_is_broken(cut: int) -> None:
    png = with_chunk(encoded(noise("RGB"), "PNG"), b"tEXt", b"note\0hello")
    with pytest.raises(Reject, match="undecodable"):
        decode(png[:cut], LIMIT)
    broken = bytearray(png)
    broken[png.index(b"IDAT") + 10] ^= 1
    with pytest.raises(Reject, match="undecodable"):
        decode(bytes(broken), LIMIT)


def grey(values: np.ndarray, format: str = "TIFF") -> bytes:
    return encoded(Image.fromarray(values), format)


def test_floats_from_0_to_1_are_grey() -> None:
    values = np.array([[0, 0.25, 0.5, 1]], dtype=np.float32)
    assert pixels_of(grey(values))[0, :, 0].tolist() == [0, 64, 128, 255]
    assert pixels_of(grey(np.array([[0, 65535, 256]], dtype=np.int32)))[0, :, 0].tolist() == [
        *(0, 255, 1)
    ]


@pytest.mark.parametrize(
    "values", [[[0.0, 255.0]], [[-0.1, 1.0]], [[0.5, float("nan")]], [[0.0, float("inf")]]]
)
def test_floats_of_no_known_range_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(Reject, match=r"undecodable.* known: "):
        decode(grey(np.array(values, dtype=np.float32)), LIMIT)


def test_large_whole_numbers_are_refused() -> None:
    with pytest.raises(Reject, match="values from 0 to 65536 of int32"):
        decode(grey(np.array([[0, 65536]], dtype=np.int32)), LIMIT)
