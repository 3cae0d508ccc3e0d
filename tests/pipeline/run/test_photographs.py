"""Real photographs, whole and damaged in forty ways."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnnotateConfig
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import read_samples
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import decode, measure
from tests.pipeline.stand_ins import rows

DATA = Path(__file__).parents[4] / "shared" / "data" / "coco-val-100"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")

Fields = dict[str, bytes]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def photographs() -> dict[str, Fields]:
    """Key → fields of both shards."""
    samples: dict[str, Fields] = {}
    for shard in find_shards([str(DATA)]):
        with Path(shard.location).open("rb") as stream:
            samples |= {sample.key: sample.fields for sample in read_samples(stream)}
    assert len(samples) == 100
    return samples


def test_every_photograph_has_its_row_and_masks_of_its_size(
    photographs: dict[str, Fields],
    make_config: Callable[..., AnnotateConfig],
    annotate: Callable[..., Ledger],
) -> None:
    ledger = annotate(make_config(input=str(DATA)))
    images, annotations = rows(ledger, "images"), rows(ledger, "annotations")
    assert [row["key"] for row in images] == list(photographs)
    for row in images:
        with Image.open(io.BytesIO(photographs[row["key"]]["jpg"])) as image:
            assert (row["width"], row["height"]) == image.size
        labels = json.loads(photographs[row["key"]]["json"])["labels"]
        assert row["prompts"] == len(set(labels))
        assert row["status"] == ("annotated" if row["masks"] else "empty")
    sizes = {row["key"]: [row["height"], row["width"]] for row in images}
    assert len(annotations) == sum(row["masks"] for row in images) > 200
    for row in annotations:
        assert row["segmentation"]["size"] == sizes[row["key"]] == [row["height"], row["width"]]
        area, box = measure(row["segmentation"])
        assert (row["area"], row["bbox"]) == (area, box)
    for row in annotations[::25]:  # the slow way
        pixels = decode(row["segmentation"])
        vertical, horizontal = np.nonzero(pixels)
        left, top = horizontal.min(), vertical.min()
        size = [horizontal.max() + 1 - left, vertical.max() + 1 - top]
        assert (row["area"], row["bbox"]) == (pixels.sum(), [left, top, *size])


# --- damage


def cut(fraction: float) -> Callable[[Fields], Fields]:
    return lambda f: f | {"jpg": f["jpg"][: int(fraction * len(f["jpg"]))]}


def put(**fields: bytes) -> Callable[[Fields], Fields]:
    return lambda f: f | fields


def without(*names: str) -> Callable[[Fields], Fields]:
    return lambda f: {name: data for name, data in f.items() if name not in names}


def labels(value: object) -> Callable[[Fields], Fields]:
    return put(json=json.dumps({"labels": value}).encode())


def overwritten(f: Fields) -> Fields:
    return f | {"jpg": bytes(64) + f["jpg"][64:]}


def bomb(f: Fields) -> Fields:
    stream = io.BytesIO()
    Image.new("L", (5000, 4000)).save(stream, "PNG")
    return f | {"jpg": stream.getvalue()}


SAMPLES: list[tuple[str, Callable[[Fields], Fields]]] = [
    ("undecodable", cut(0.0)),
    ("undecodable", cut(0.01)),
    ("undecodable", cut(0.1)),
    ("undecodable", cut(0.5)),
    ("undecodable", cut(0.9)),
    ("undecodable", cut(0.99)),
    ("undecodable", put(jpg=b"\xff\xd8\xff")),
    ("undecodable", put(jpg=b"\xff\xd8\xff\xd9")),
    ("undecodable", put(jpg=b"<html>404</html>")),
    ("undecodable", put(jpg=bytes(10_000))),
    ("undecodable", put(jpg=b"GIF89a" + bytes(50))),
    ("undecodable", put(jpg=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    ("undecodable", overwritten),
    ("too_large", bomb),
    ("missing_field", without("jpg")),
    ("missing_field", without("json")),
    ("missing_field", without("jpg", "json")),
    ("missing_field", put(json=b"{}")),
    ("missing_field", put(json=b"[]")),
    ("bad_prompts", put(json=b"")),
    ("bad_prompts", put(json=b"{'labels': ['dog']}")),
    ("bad_prompts", put(json=b'{"labels": ["dog"]')),
    ("bad_prompts", put(json=b"\xff\xfe")),
    ("bad_prompts", put(json=b"[" * 50_000)),
    ("bad_prompts", labels("dog")),
    ("bad_prompts", labels({"dog": 1})),
    ("bad_prompts", labels(["dog", 7])),
    ("bad_prompts", labels(["dog", ["cat"]])),
    ("bad_prompts", labels(["\ud83d"])),
]
"""Reason → damage of one sample, which its reason must name."""

SHARDS: list[tuple[str, Callable[[bytes, int], bytes]]] = [
    ("at a sample", lambda tar, header: tar[:header]),
    ("in a header", lambda tar, header: tar[: header + 77]),
    ("after a header", lambda tar, header: tar[: header + 512]),
    ("in data", lambda tar, header: tar[: header + 700]),
    ("header", lambda tar, header: tar[:header] + b"\xff" + tar[header + 1 :]),
    ("hole", lambda tar, header: tar[:header] + bytes(512) + tar[header + 512 :]),
    ("zeros", lambda tar, header: tar[:header] + bytes(len(tar) - header)),
    ("end", lambda tar, header: tar.rstrip(b"\0")),
    ("odd", lambda tar, header: tar + b"!"),
    ("empty", lambda tar, header: b""),
    ("html", lambda tar, header: b"<html>" * 1000),
]
"""Name → damage of a shard, given the position of a header in its middle."""


def packed(samples: dict[str, Fields]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for key, fields in samples.items():
            for name, data in fields.items():
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(data)
                writer.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def headers(archive: bytes) -> Iterator[int]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        yield from (member.offset for member in reader if member.name.endswith(".jpg"))


def test_each_of_forty_damages_is_named_and_nothing_else_is_touched(
    photographs: dict[str, Fields],
    tmp_path: Path,
    make_config: Callable[..., AnnotateConfig],
    annotate: Callable[..., Ledger],
) -> None:
    assert len(SAMPLES) + len(SHARDS) == 40
    folder = tmp_path / "shards"
    folder.mkdir()
    some = dict(list(photographs.items())[:10])
    expected = {}
    mixed: dict[str, Fields] = {}
    keys = iter(some)
    for number, (reason, damage) in enumerate(SAMPLES):
        mixed[f"damaged-{number:02}"] = damage(photographs["000000000139"])
        expected[f"damaged-{number:02}"] = reason
        if number % 3 == 2:
            key = next(keys)
            mixed[key] = some[key]
    mixed |= some
    (folder / "mixed.tar").write_bytes(packed(mixed))
    whole = packed(some)
    (folder / "whole.tar").write_bytes(whole)
    middle = list(headers(whole))[5]
    for name, damage_shard in SHARDS:
        (folder / f"{name}.tar").write_bytes(damage_shard(whole, middle))

    config = make_config(input=str(folder), max_pixels=10_000_000, max_reject_fraction=0.8)
    config = replace(config, engine=replace(config.engine, max_attempts=1))
    ledger = annotate(config)

    shards = {Path(shard.uri).stem: shard.name for shard in find_shards([str(folder)])}
    assert ledger.committed() == {shards["mixed"], shards["whole"]}
    assert set(ledger.failures()) == {shards[name] for name, _ in SHARDS}
    assert all(ledger.failures().values())
    images = {
        (row["shard"], row["key"]): (row["status"], row["reason"]) for row in rows(ledger, "images")
    }
    for key, reason in expected.items():
        assert images.pop((shards["mixed"], key)) == ("rejected", reason), key
    assert set(images.values()) <= {("annotated", None), ("empty", None)}
    assert set(images) == {(shards[name], key) for name in ("mixed", "whole") for key in some}

    # The photographs in between are as they are without the damage.
    columns = ("key", "prompt", "area", "bbox", "height", "width")
    found = {
        shard: [[row[c] for c in columns] for row in rows(ledger, "annotations")
                if row["shard"] == shards[shard]]
        for shard in ("mixed", "whole")
    }  # fmt: skip
    assert found["mixed"] == found["whole"] != []
