"""Whatever comes in, a result or one of our own errors comes out: `make long` asks 10,000 times."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import PromptConfig
from pipeline.errors import ConfigError, Reject, ShardError
from pipeline.evaluation.points.descriptions import read_descriptions
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.segmentation.truth import CocoTruth
from pipeline.inputs.classes import load_classes
from pipeline.inputs.images import decode
from pipeline.inputs.naming import Naming
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import RawSample, read_samples
from tests.pipeline.conftest import labelled, picture, tar

OURS = (ConfigError, Reject, ShardError)
PIXELS = 1 << 20
SHARD = tar([*labelled("a", ["dog"]), ("._b.jpg", b""), *labelled("x/c", ["cat", None])])
IMAGES = [picture(format=name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
COCO = {
    "images": [{"id": 1, "file_name": "x/a.jpg", "height": 8, "width": 8}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"size": [8, 8], "counts": [64]},
        },
    ],
}
POINTS = b"ImageId,X,Y,Label,EstimatedYesNo\na,0.5,0.5,/m/1,yes\nb,0.1,0.2,/m/2,no\n"
NAMES = b"LabelName,DisplayName\n/m/1,dog\n/m/2,cat\n"
CLASSES = b"- {id: 1, name: dog, prompts: [dog, puppy], threshold: 0.4}\n- {id: 2, name: cat}\n"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
"""Values of JSON."""


def after_header(size: int, kind: bytes) -> bytes:
    """The shard behind a valid header of any size."""
    member = tarfile.TarInfo("a.jpg")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT) + SHARD


@st.composite
def damaged(draw: st.DrawFn, *good: bytes) -> bytes:
    """One of some files with bytes changed, cut out, repeated or put in; or just bytes."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = at + draw(st.integers(0, 600))
        data[at:end] = draw(st.binary(max_size=8) | st.just(bytes(data[at:end]) * 2))
    return bytes(data) if draw(st.integers(0, 9)) else draw(st.binary(max_size=2000))


@st.composite
def edited(draw: st.DrawFn, good: Any) -> bytes:
    """JSON with some of its values replaced."""
    content = json.loads(json.dumps(good))

    def edit(value: Any) -> Any:
        if draw(st.integers(0, 11)) == 0:
            return draw(PLAIN)
        if isinstance(value, dict):
            return {name: edit(each) for name, each in value.items()}
        return [edit(each) for each in value] if isinstance(value, list) else value

    return json.dumps(edit(content)).encode()


def of_tar(data: bytes, folder: Path) -> None:
    (folder / "a.tar").write_bytes(data)
    (shard,) = find_shards([str(folder / "a.tar")])
    for naming in (Naming(), Naming("last_dot")):
        there, read = [], []
        reader = ShardReader(lambda raw: raw.key, max_pixels=PIXELS, max_sample_bytes=100_000,
                             naming=naming)  # fmt: skip
        with suppress(ShardError):
            for raw in read_samples(io.BytesIO(data), 100_000, naming):
                there.append((len(there), raw.key))
                assert sum(map(len, raw.fields.values())) <= 100_000
        with suppress(ShardError):
            for sample in reader(shard):
                read.append((sample.index, sample.key))
        assert read == there  # every key once, as an image or with a reason


def of_image(data: bytes, _: Path) -> None:
    pixels = decode(data, PIXELS)
    assert pixels.shape[0] == 3 and pixels[0].numel() <= PIXELS


def of_prompts(data: bytes, _: Path) -> None:
    for source, field in (
        ("labels", ""),
        ("caption", "labels"),
        ("caption", ""),
        ("embeddings", ""),
    ):
        read = PromptReader(PromptConfig(source=source, field=field))
        try:
            for prompt in read({"json": data, "txt": data, "npy": data}):
                assert prompt.texts[0].strip()
        except Reject:
            continue


def of_classes(data: bytes, folder: Path) -> None:
    (folder / "classes.yaml").write_bytes(data)
    assert load_classes(str(folder / "classes.yaml"))


def of_coco(data: bytes, folder: Path) -> None:
    (folder / "coco.json").write_bytes(data)
    with redirect_stdout(io.StringIO()):
        truth = CocoTruth(str(folder / "coco.json"))
    for key in ("x/a", "a", "b"):
        try:
            found = truth(RawSample(0, key, {}))
        except Reject:
            continue
        assert found is None or found.masks.shape[1:] == found.ignored.shape


def of_points(data: bytes, folder: Path) -> None:
    (folder / "points.csv").write_bytes(data)
    (folder / "names.csv").write_bytes(NAMES)
    read_labels(str(folder / "points.csv"), str(folder / "names.csv"))


def of_names(data: bytes, folder: Path) -> None:
    (folder / "names.csv").write_bytes(data)
    assert all(isinstance(name, str) for name in read_descriptions(str(folder / "names.csv")))


NEGATIVE = [
    after_header(-1, tarfile.REGTYPE),
    after_header(-600, tarfile.GNUTYPE_LONGNAME),
]
READERS: dict[str, tuple[Callable[[bytes, Path], None], st.SearchStrategy[bytes]]] = {
    "tar": (of_tar, damaged(SHARD, *NEGATIVE)),
    "image": (of_image, damaged(*IMAGES)),
    "prompts": (of_prompts, edited({"labels": ["dog", "cat"]}) | damaged(b'{"labels": ["dog"]}')),
    "class file": (of_classes, damaged(CLASSES)),
    "COCO": (of_coco, edited(COCO) | damaged(json.dumps(COCO).encode())),
    "points": (of_points, damaged(POINTS)),
    "descriptions": (of_names, damaged(NAMES)),
}


@pytest.mark.filterwarnings("ignore:::PIL")  # about files that are broken
@pytest.mark.parametrize("examples", [60, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", READERS)
def test_what_comes_in_broken_is_refused_in_our_words(
    name: str, examples: int, tmp_path: Path
) -> None:
    read, inputs = READERS[name]

    @settings(max_examples=examples, deadline=10_000, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def ask(data: bytes) -> None:
        try:
            read(data, tmp_path)
        except OURS as error:
            assert "\n" not in str(error)

    ask()
