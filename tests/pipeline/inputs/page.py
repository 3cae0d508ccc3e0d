"""What is made of every kind of input: `python -m tests.pipeline.inputs.page` writes the table.

Each row is an example that the readers are given; the last column is what they make of it.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from pipeline.config import PromptConfig
from pipeline.config.weights import settle
from pipeline.errors import ConfigError, Reject, ShardError
from pipeline.evaluation.matching import Matcher
from pipeline.evaluation.points.descriptions import read_descriptions
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.segmentation.truth import CocoTruth, IndexTruth
from pipeline.inputs.classes import load_classes
from pipeline.inputs.images import decode
from pipeline.inputs.naming import AS_WEBDATASET, Naming
from pipeline.inputs.prompts import PromptReader, Prompts
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Rejected, Sample
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import RawSample
from pipeline.models.checkpoints import check_file, explained
from tests.pipeline.conftest import picture, tar

PAGE = Path(__file__).parents[3] / "docs" / "inputs.md"
BLOCK = re.compile(r"(<!-- inputs: begin.*?-->\n).*?(<!-- inputs: end -->)", re.DOTALL)
HEADER = "| what | example | what is made of it |\n|---|---|---|\n"
JPEG = picture()
Row = tuple[str, str, str]


def table() -> str:
    """All rows, as the page has them."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        made = [*members(Path(folder)), *images(), *prompts(), *files(Path(folder))]
        made += [*truths(Path(folder)), *weights(Path(folder)), *places(Path(folder))]
    return HEADER + "".join(
        f"| {what} | {example} | {result} |\n" for what, example, result in made
    )


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
        "less than 25 ms": {"wav": wav(399)},
        "more than `--prompts.max_seconds`": {"flac": wav(16_000 * 301, "FLAC")},
    }.items():
        result = outcome(lambda fields=fields: read("audio", fields))
        yield "prompt", f"`audio`: {example}", result


def wav(samples: int, format: str = "WAV") -> bytes:
    """A sound at 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(samples), 16_000, format=format)
    return file.getvalue()


def files(folder: Path) -> Iterator[Row]:
    """Class files and truths."""
    classes = folder / "classes.yaml"
    texts = ("- {id: 1, name: dog}", "- {id: 1, name: no}", "dog, cat")
    for text in (*texts, "- {id: 1, name: dog}\n- {id: 1, name: cat}"):
        classes.write_text(text)
        example = f"`{text}`".replace("\n", "` `")
        yield (
            "class file",
            example,
            outcome(lambda: f"classes: {len(load_classes(str(classes)))}", str(classes)),
        )
    names = folder / "names.csv"
    for text in ("LabelName,DisplayName\n/m/1,dog", "/m/1,dog\n/m/2,cat", "DisplayName,x\ndog,1"):
        names.write_text(text)
        example = f"`{text}`".replace("\n", "` `")
        yield (
            "class descriptions",
            example,
            outcome(lambda: f"labels: {len(read_descriptions(str(names)))}", str(names)),
        )
    square = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]]
    for what, file_names, segmentation, key in (
        ("whole path", ["a.jpg", "x/a.jpg"], square, "x/a"),
        ("Windows path", ["x\\a.jpg"], square, "x/a"),
        ("base name, if only one has it", ["x/a.jpg"], square, "y/a"),
        ("base name that two have", ["x/a.jpg", "y/a.jpg"], square, "a"),
        ("the same name twice", ["a.jpg", "a.jpg"], square, "a"),
        ("a segmentation that is empty", ["a.jpg"], [], "a"),
    ):
        path = folder / "coco.json"
        pictures = [{"id": i, "file_name": n, "height": 8, "width": 8}
                    for i, n in enumerate(file_names)]  # fmt: skip
        regions = [{"id": 1, "image_id": i, "category_id": 1, "segmentation": segmentation}
                   for i in range(len(pictures))]  # fmt: skip
        content = {"images": pictures, "annotations": regions,
                   "categories": [{"id": 1, "name": "dog"}]}  # fmt: skip
        path.write_text(json.dumps(content))

        def find(path: Path = path, key: str = key) -> str:
            truth = CocoTruth(str(path))
            found = truth(RawSample(0, key, {}))
            left = ", ".join(f"left out: {fault}" for fault in truth.left_out)
            return f"`{found.image}`" if found else left or "no truth"

        shown = ", ".join(f"`{name}`" for name in dict.fromkeys(file_names))
        yield "COCO truth", f"{what}: {shown} for key `{key}`", outcome(find, str(path))


def truths(folder: Path) -> Iterator[Row]:
    """Points, and masks in a folder."""
    points, names, classes = (folder / name for name in ("points.csv", "d.csv", "classes.yaml"))
    names.write_text("/m/d,dog\n")
    header, row = "ImageId,X,Y,Label,EstimatedYesNo\n", ",0.5,0.5,/m/d,yes\n"
    for what, text, key in (
        ("whole path", f"{header}a{row}x/a{row}", "x/a"),
        ("base name", f"{header}a{row}", "x/a"),
        ("base name that two have", f"{header}x/a{row}y/a{row}", "a"),
        ("blanks around names", "ImageId, X, Y, Label, EstimatedYesNo\n a ,0,0, /m/d , yes\n", "a"),
        ("no header", f"a{row}", "a"),
        ("semicolons", f"{header}a{row}".replace(",", ";"), "a"),
    ):
        points.write_text(text)

        def find(key: str = key) -> str:
            return f"`{Matcher(read_labels(str(points), str(names))[0].images)(key)}`"

        example = f"{what}: for key `{key}`" if "name" in what or "path" in what else what
        yield "points", example, outcome(find, str(points))
    classes.write_text("- {id: 1, name: dog}")
    masks = folder / "masks"
    for file_names, key in (
        (["a", "x/a"], "x/a"), (["a"], "x/a"), (["x/a", "y/a"], "a"), ([], "a"),
    ):  # fmt: skip
        shutil.rmtree(masks, ignore_errors=True)
        masks.mkdir()
        for name in file_names:
            (masks / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.ones((4, 4), np.uint8)).save(masks / f"{name}.png")

        def mask(key: str = key) -> str:
            found = IndexTruth(str(masks), "", str(classes))(RawSample(0, key, {}))
            return f"`{found.image}`" if found else "no truth"

        shown = ", ".join(f"`{name}.png`" for name in file_names) or "nothing"
        yield "masks in a folder", f"{shown} for key `{key}`", outcome(mask)


def weights(folder: Path) -> Iterator[Row]:
    """Files of weights, and what belongs to them."""

    def read(path: Path) -> bool:
        try:
            check_file(path)
            torch.load(path, weights_only=True)
        except Exception as error:
            raise ConfigError(explained(error, path)) from error
        return True

    def saved(content: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(content, stream)
        return stream.getvalue()

    def zipped(name: str) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(name, b"")
        return stream.getvalue()

    tensors = {"visual.weight": torch.ones(2)}
    for what, name, data in (
        ("tensors", "w.pt", saved(tensors)),
        ("tensors, and other Python objects", "w.pt", saved(tensors | {"args": Namespace(lr=1)})),
        ("TorchScript", "w.pt", zipped("w/constants.pkl")),
        ("another zip", "w.pt", zipped("readme.txt")),
        ("compressed", "w.pt.gz", gzip.compress(saved(tensors))),
        ("a tar", "w.pt", tar([("w.bin", b"")])),
        ("one of several parts", "w-00001-of-00002.bin", saved(tensors)),
        ("a web page", "w.pt", b"<!DOCTYPE html>"),
        ("a pointer of Git LFS", "w.pt", b"version https://git-lfs.github.com/spec/v1"),
        ("anything else", "w.pt", b"weights"),
    ):
        path = folder / name
        path.write_bytes(data)
        yield "weights", f"{what}: `{name}`", outcome(lambda path=path: read(path))
        path.unlink()
    beside = folder / "open_clip_config.json"
    mean = {"mean": [0.5, 0.5, 0.5]}
    for model, config in (("ViT-B-16-SigLIP", None), ("ViT-L-14", None), ("ViT-L-14", mean)):
        beside.unlink(missing_ok=True)
        if config:
            beside.write_text(json.dumps({"preprocess_cfg": config}))
        settled = settle(model, str(folder / "w.pt"), {})
        guess = " With a warning: nothing says mean." if "mean" in settled.lines[-1].partition(
            "differ in")[2].partition(",")[0] else ""  # fmt: skip
        lies = f", beside `{beside.name}`" if config else ""
        told = f"mean {settled.values['mean']}, from {settled.sources['mean']}.{guess}"
        yield "weights", f"of {model} in a file{lies}", told


def places(folder: Path) -> Iterator[Row]:
    """Where shards are."""
    for name in ("b.tar", "run#1.tar", "a b.tar", ".hidden.tar", "c [1].tar"):
        (folder / name).write_bytes(tar([]))
    (folder / "gone").mkdir()
    (folder / "gone" / "d.tar").symlink_to(folder / "nowhere")
    for example, pattern in {
        "`run#1.tar`: no fragment": "run#1.tar",
        "`a b.tar`": "a b.tar",
        "`c [1].tar`": "c [1].tar",
        "`c [1]*`: a pattern": "c [1]*",
        "`*.tar` beside `.hidden.tar`": "*.tar",
        "`.h*.tar`": ".h*.tar",
        "a link to what is not there": "gone",
        "a name that is not there": "none.tar",
    }.items():
        (folder / "a.tar").unlink(missing_ok=True)
        yield (
            "place",
            example,
            outcome(
                lambda pattern=pattern: ", ".join(
                    f"`{Path(shard.uri).name}`" for shard in find_shards([f"{folder}/{pattern}"])
                ),
                f"{folder}/",
            ),
        )
    encoded = f"file://{folder}/a%20b.tar"
    yield (
        "place",
        "`file:///…/a%20b.tar`: percent-encoded",
        outcome(lambda: f"`{Path(find_shards([encoded])[0].uri).name}`"),
    )


def rejected(sample: Any) -> str:
    """Why a sample is, as the page says it."""
    assert isinstance(sample, Rejected)
    return f"rejected: `{sample.reason}`"


def outcome(ask: Callable[[], Any], hidden: str = "") -> str:
    """What a question is answered with, or refused, without the path of a file."""
    try:
        answer = ask()
    except Reject as reject:
        return f"rejected: `{reject.reason}`"
    except ShardError as error:
        return f"the shard fails: {error}"
    except ConfigError as error:
        text = str(error).replace(hidden, "…" if hidden and not hidden.endswith("/") else "")
        return "exit 2: " + text.replace("|", "\\|")
    return "accepted" if answer is True else str(answer)


def code(names: str) -> str:
    """Names, each in a code span."""
    return " ".join(f"`{name}`" for name in names.split())


def encoded(image: Image.Image, format: str) -> bytes:
    """An image in a format."""
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + table() + found[2], text))
