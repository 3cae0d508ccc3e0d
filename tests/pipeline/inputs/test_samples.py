"""From the fields of a sample to pixels and prompts, or a reason."""

from collections.abc import Callable

import pytest
import torch

from pipeline.config import PromptConfig
from pipeline.inputs.images import squash
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.samples import Rejected, Sample, SampleReader
from pipeline.inputs.tars import RawSample

LABELS = b'{"labels": ["dog"]}'


@pytest.fixture
def read() -> SampleReader:
    return SampleReader(PromptReader(PromptConfig()), 10_000, lambda pixels: squash(pixels, 8))


def raw(index: int = 0, key: str = "a", repeated: str | None = None, **fields: bytes) -> RawSample:
    return RawSample(index, key, fields, repeated)


@pytest.mark.parametrize("field", ["jpg", "jpeg", "png", "webp"])
def test_a_sample_is_its_image_and_its_prompts(
    field: str, read: SampleReader, picture: Callable[..., bytes]
) -> None:
    sample = read(raw(3, "k", json=LABELS, **{field: picture(size=(40, 30))}))
    assert isinstance(sample, Sample)
    assert (sample.index, sample.key, sample.height, sample.width) == (3, "k", 30, 40)
    assert (sample.pixels.shape, sample.pixels.dtype) == ((3, 8, 8), torch.uint8)
    assert [prompt.category for prompt in sample.prompts] == ["dog"]


def test_the_content_says_what_an_image_is_and_not_the_name(
    read: SampleReader, picture: Callable[..., bytes]
) -> None:
    assert isinstance(read(raw(json=LABELS, jpg=picture(format="PNG"))), Sample)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"json": LABELS}, "missing_field"),
        ({"json": LABELS, "gif": b""}, "missing_field"),
        ({"json": LABELS, "jpg": b"", "repeated": "jpg"}, "duplicate_field"),
        ({"json": LABELS, "jpg": b""}, "undecodable"),
        ({"json": b"", "jpg": b""}, "bad_prompts"),
    ],
)
def test_what_cannot_be_annotated(
    fields: dict[str, bytes], reason: str, read: SampleReader
) -> None:
    rejected = read(raw(5, "k", **fields))
    assert isinstance(rejected, Rejected)
    assert (rejected.index, rejected.key, rejected.reason) == (5, "k", reason)
    assert rejected.detail


def test_a_large_image_is_rejected(read: SampleReader, picture: Callable[..., bytes]) -> None:
    rejected = read(raw(json=LABELS, jpg=picture(size=(101, 100))))
    assert rejected == Rejected(0, "a", "too_large", "101x100 pixels")


def test_a_key_is_admitted_once(read: SampleReader) -> None:
    verdicts = [read.admit(raw(i, key)) for i, key in enumerate(["a", "b", "a", "a"])]
    assert verdicts[:2] == [None, None]
    assert [v.reason for v in verdicts[2:] if v] == ["duplicate_key"] * 2
