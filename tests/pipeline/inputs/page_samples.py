"""Rows of the page about inputs: members of tars, images, prompts and sounds."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from pipeline.config import PromptConfig
from pipeline.errors import ShardError
from pipeline.inputs.images import decode
from pipeline.inputs.naming import AS_WEBDATASET, Naming
from pipeline.inputs.prompts import PromptReader, Prompts
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from tests.pipeline.conftest import picture, tar
from tests.pipeline.inputs.page_words import Row, code, encoded, outcome, rejected

JPEG = picture()


def members(folder: Path) -> Iterator[Row]:
    """Names in a tar."""

    def read(names: str, naming: Naming = AS_WEBDATASET, cut: int = 0) -> str:
        data = tar((name, JPEG if name[-3:].lower() in ("jpg", "png") else b"{}")
                   for name in names.split())  # fmt: skip
        (folder / "a.tar").write_bytes(data[: len(data) - cut])
        found = []
        try:
            for sample in ShardReader(lambda raw: raw.key, naming=naming, max_sample_bytes=10_000)(
                find_shards([str(folder / "a.tar")])[0]
            ):
                is_good = isinstance(sample, Sample)
                found.append(f"`{sample.key}`" if is_good else rejected(sample))
        except ShardError as error:
            found.append(f"the shard fails: {str(error).partition(':')[0]}")
        return ", ".join(found) or "passed over"

    for what, names in {
        "a sample": "a.jpg a.json",
        "folders are part of the key": "x/a.jpg y/a.jpg",
        "capital extensions": "a.JPG",
        "several images: the first of the usual extensions": "a.png a.jpg",
        "a Mac's notes": "a.jpg ._a.jpg a.json __MACOSX/a.jpg .DS_Store",
        "no extension, a folder": "README x/",
        "no image": "a.json",
        "a format that is not decoded": "a.heic",
        "numbers behind a dot": "a.000.jpg a.001.jpg a.002.jpg",
        "a key that comes back": "a.jpg b.jpg a.jpg",
        "a field twice": "a.jpg a.JPG",
    }.items():
        yield "member", f"{what}: {code(names)}", read(names)
    numbered = "a.000.jpg a.001.jpg"
    yield "member", f"{code(numbered)}, `--key_end last_dot`", read(numbered, Naming("last_dot"))
    several = "a.jpg a.left.png"
    left = Naming(image="left.png")
    yield "member", f"{code(several)}, `--image_field left.png`", read(several, left)
    yield "member", "a tar that is cut short", read("a.jpg b.jpg", cut=11_000)
    path = folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "b.jpg"
        archive.addfile(link)
    of_links = ShardReader(lambda raw: raw.key)(find_shards([str(path)])[0])
    yield "member", "an image that is a link: `a.jpg`", ", ".join(map(rejected, of_links))
    path.write_bytes(gzip.compress(tar([("a.jpg", JPEG)])))
    compressed = ShardReader(lambda raw: raw.key)(find_shards([str(path)])[0])
    yield "member", "a tar that is compressed, named `.tar`", outcome(lambda: list(compressed))


def images() -> Iterator[Row]:
    """Contents of images, whatever their names say."""
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(np.uint16(grey * 65535))
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    png = encoded(colour, "PNG")
    at = png.index(b"IDAT") - 4
    profile = b"icc\0\0" + zlib.compress(bytes(2 << 20))
    chunk = struct.pack(">I", len(profile)) + b"iCCP" + profile
    chunk += struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    for example, data in {
        "JPEG": JPEG,
        "grey JPEG": encoded(colour.convert("L"), "JPEG"),
        "CMYK JPEG": encoded(colour.convert("CMYK"), "JPEG"),
        "PNG": png,
        "PNG with a palette": encoded(colour.quantize(8), "PNG"),
        "PNG with transparency (dropped)": encoded(colour.convert("RGBA"), "PNG"),
        "PNG with a profile of 2 MB (not read)": png[:at] + chunk + png[at:],
        "16-bit PNG (its upper eight bits)": encoded(
            Image.fromarray(np.uint16(grey * 65535)), "PNG"
        ),
        "WebP": encoded(colour, "WEBP"),
        "GIF (its first frame)": encoded(colour, "GIF"),
        "BMP": encoded(colour, "BMP"),
        "TIFF": encoded(colour, "TIFF"),
        "TIFF of floats from 0 to 1": encoded(Image.fromarray(grey), "TIFF"),
        "TIFF of floats from 0 to 255": encoded(Image.fromarray(grey * 255), "TIFF"),
        "JPEG without its end": JPEG[:-100],
        "PNG with a flipped bit": png[:50] + bytes([png[50] ^ 1]) + png[51:],
        "no image": b"GET / HTTP/1.1",
        "nothing": b"",
    }.items():
        yield "image", example, outcome(lambda data=data: decode(data, 1 << 20) is not None)
    yield "image", "more than `--max_pixels`", outcome(lambda: decode(png, 60) is not None)


def prompts() -> Iterator[Row]:
    """Texts of samples."""

    def read(source: Any, fields: dict[str, bytes], **settings: Any) -> str:
        found = PromptReader(PromptConfig(source=source, **settings))(fields)
        left_out = found.blank if isinstance(found, Prompts) else 0
        names = ", ".join(f"`{prompt.wordings[0]}`" for prompt in found) or "no prompt"
        return names + (f"; {left_out} `blank`" if left_out else "")

    lists: list[Any] = [["dog", "cat", "dog"], ["dog", None, " "], [], None, "dog", ["dog", 1]]
    for labels in lists:
        data = json.dumps({"labels": labels})
        yield (
            "prompt",
            f"`labels`: `{data}`",
            outcome(lambda data=data: read("labels", {"json": data.encode()})),
        )
    for text, shown in {
        "a dog\n": "a text",
        "\ufeffa dog": "a byte-order mark before it",
        " \u200b\n": "blanks, zero-width ones too",
    }.items():
        yield (
            "prompt",
            f"`caption`: {shown}",
            outcome(lambda text=text: read("caption", {"txt": text.encode()})),
        )
    yield "prompt", "`caption`: not UTF-8", outcome(lambda: read("caption", {"txt": b"\xff"}))
    yield "prompt", "`caption`: no `.txt`", outcome(lambda: read("caption", {}))
    yield from sounds(read)


def sounds(read: Callable[..., str]) -> Iterator[Row]:
    """Sounds of samples."""
    second = wav(16_000)
    listed = json.dumps({"labels": ["dog"]}).encode()
    for example, fields in {
        "`a.dog.wav`": {"dog.wav": second},
        '`a.wav`, `{"labels": ["dog"]}`': {"wav": second, "json": listed},
        "`a.wav`": {"wav": second},
        "`a.dog.wav` `a.cat.ogg`": {"dog.wav": second, "cat.ogg": wav(8_000, "OGG")},
        'two sounds, `{"labels": ["dog"]}`': {"wav": second, "ogg": second, "json": listed},
        "no sound": {"txt": b"dog"},
        "a file that is none": {"mp3": b"GET / HTTP/1.1"},
        "nothing": {"ogg": b""},
        "a WAV that ends before its header says": {"wav": second[:-1]},
        "less than 25 ms": {"wav": wav(399)},
        "silence alone": {"wav": wav(16_000, loudness=0.0)},
        "more than `--prompts.max_seconds`": {"flac": wav(16_000 * 301, "FLAC")},
    }.items():
        result = outcome(lambda fields=fields: read("audio", fields))
        yield "prompt", f"`audio`: {example}", result


def wav(samples: int, format: str = "WAV", loudness: float = 0.5) -> bytes:
    """A tone at 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, loudness * np.sin(np.arange(samples)), 16_000, format=format)
    return file.getvalue()
