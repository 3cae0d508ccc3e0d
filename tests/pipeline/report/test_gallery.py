"""Pictures of masks: what is drawn, and what is said where images cannot be read."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import MaskConfig
from pipeline.errors import ConfigError
from pipeline.outputs.ledger import Ledger
from pipeline.report import gallery
from pipeline.report.build import NUMBERS, PAGE, write_report
from pipeline.report.config import ReportConfig
from pipeline.report.pictures import EDGE, LINE, SIDE, data_uri, outlined, shrunk
from tests.pipeline.conftest import labelled, picture, tar
from tests.pipeline.stand_ins import Annotate, MakeConfig, Write

PICTURE = re.compile(r'<img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)"')
EXAMPLES = {"examples": 4, "examples_per_class": 4}
MASKS = 3 * 4 + 2 * 4
"""Shown: at random, the highest, the lowest; of two classes."""


def report(output: str, folder: Path, **settings: Any) -> tuple[str, list[str]]:
    """The page, and its notes."""
    shown = write_report(
        ReportConfig(predictions=output, output=str(folder), **EXAMPLES | settings)
    )
    numbers = json.loads((folder / NUMBERS).read_text())
    assert numbers["gallery"]["notes"] == shown.notes
    page = (folder / PAGE).read_text()
    assert all(note.replace("'", "&#39;") in page for note in shown.notes)
    return page, shown.notes


def pictures(page: str) -> list[Image.Image]:
    found = []
    for data, width, height in PICTURE.findall(page):
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.size == (int(width), int(height))
        found.append(image)
    return found


@pytest.fixture
def run(annotate: Annotate, make_config: MakeConfig, write_shards: Write, good: bytes) -> Ledger:
    """Two shards, whose names are without their folder."""
    folder = write_shards(a=good, b=good)
    return annotate(make_config(input=folder, input_root=folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def test_each_mask_has_its_image_its_heat_and_its_outline(
    run: Ledger, folder: Path, tmp_path: Path
) -> None:
    page, notes = report(run.output, tmp_path, input_root=str(folder))
    assert notes == []
    shown = pictures(page)
    masks = [m for g in json.loads((tmp_path / NUMBERS).read_text())["gallery"]["groups"]
             for m in g["masks"]]  # fmt: skip
    assert len(shown) == 3 * len(masks) == 3 * MASKS
    stored = np.array(Image.open(io.BytesIO(picture())).convert("RGB"), np.int32)
    for original, heat, outline in zip(*(iter(shown),) * 3, strict=True):
        assert original.size == heat.size == outline.size == (40, 30)
        assert abs(np.array(original, np.int32) - stored).mean() < 8
        assert abs(np.array(heat, np.int32) - stored).mean() > 8
    for kind in ("Image 0", "Heat for “a photo of a", "Outline of the mask for “a photo of a"):
        assert f'alt="{kind}' in page


def test_images_are_found_where_they_were_and_where_they_are_named(
    run: Ledger, folder: Path, tmp_path: Path
) -> None:
    below, _ = report(run.output, tmp_path, input_root=str(folder))
    named, notes = report(run.output, tmp_path, images=str(folder), input_root=str(folder))
    assert (named, notes) == (below, [])
    page, notes = report(run.output, tmp_path)
    assert pictures(page) == []
    (note,) = notes
    assert "and of 1 more like it" in note and "give --input_root" in note
    _, notes = report(run.output, tmp_path, images=[str(folder / "a.tar")], input_root=str(folder))
    (note,) = notes
    assert "shard b-" in note and "--images has no shard of that name" in note


def test_a_pattern_that_matches_nothing_is_refused(run: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--images nothing: no shard at nothing"):
        report(run.output, tmp_path, images="nothing")


def test_a_shard_that_is_gone_or_cut_is_named_and_the_others_are_shown(
    run: Ledger, folder: Path, tmp_path: Path
) -> None:
    (folder / "a.tar").write_bytes(b"no tar")
    page, notes = report(run.output, tmp_path, input_root=str(folder))
    assert pictures(page)
    (note,) = notes
    assert note.startswith("No pictures of images in shard a-") and "not a readable tar" in note
    (folder / "a.tar").unlink()
    page, (note,) = report(run.output, tmp_path, input_root=str(folder))
    assert pictures(page) and "a.tar" in note


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (labelled("other", ["dog"]), "the shard has changed"),
        (labelled("0", ["dog"], picture(size=(50, 30))), "the image has 50 x 30 pixels, and the"),
        (labelled("0", ["dog"], b"no image"), "undecodable"),
        ([], "the shard ends before this sample"),
    ],
)
def test_another_image_is_not_shown_in_place_of_the_one_that_was_annotated(
    members: list[tuple[str, bytes]], reason: str, annotate: Annotate, make_config: MakeConfig,
    write_shards: Write, tmp_path: Path,
) -> None:  # fmt: skip
    ledger = annotate(make_config(input=write_shards(a=tar(labelled("0", ["dog"])))))
    write_shards(a=tar(members))
    page, (note,) = report(ledger.output, tmp_path)
    assert pictures(page) == [] and reason in note
    assert "no pictures: see the notes at the top" in page


def test_without_stored_heat_the_page_says_so(
    annotate: Annotate, make_config: MakeConfig, write_shards: Write, good: bytes, tmp_path: Path
) -> None:
    config = make_config(input=write_shards(a=good), mask=MaskConfig(heat=False))
    page, notes = report(annotate(config).output, tmp_path)
    assert notes == [] and len(pictures(page)) == 2 * MASKS
    assert page.count("no heat stored") == MASKS


def test_without_examples_no_shard_is_read(run: Ledger, tmp_path: Path) -> None:
    page, notes = report(run.output, tmp_path, examples=0, examples_per_class=0)
    assert notes == [] and "There are no masks to show." in page


def test_pictures_take_no_more_than_they_may(
    run: Ledger, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = report(run.output, tmp_path, input_root=str(folder))
    monkeypatch.setattr(gallery, "MOST_CHARACTERS", 10_000)
    page, (note,) = report(run.output, tmp_path, input_root=str(folder))
    assert 0 < len(pictures(page)) < len(pictures(whole))
    assert sum(len(data) for data, _, _ in PICTURE.findall(page)) < 10_000 * MASKS
    assert "others have taken the" in note


def test_a_table_that_cannot_be_read_is_an_error(run: Ledger, tmp_path: Path) -> None:
    name = sorted(run.committed())[0]
    Path(run.output, "annotations", f"{name}.parquet").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=f"annotations/{name}.parquet cannot be read"):
        report(run.output, tmp_path)


def test_runs_in_an_object_store_are_reported_there(
    bucket: Any, annotate: Annotate, make_config: MakeConfig, good: bytes
) -> None:
    bucket.put_object(Bucket="data", Key="shards/a.tar", Body=good)
    config = replace(make_config(input="s3://data/shards"), output="s3://data/out")
    ledger = annotate(config)
    shown = write_report(
        ReportConfig(predictions=ledger.output, output="s3://data/out", **EXAMPLES)
    )
    assert shown.notes == []
    page = bucket.get_object(Bucket="data", Key="out/report.html")["Body"].read().decode()
    assert len(pictures(page)) == 3 * MASKS


def test_large_images_become_small_and_keep_their_shape() -> None:
    small = shrunk(torch.zeros(3, 300, 1000, dtype=torch.uint8))
    assert tuple(small.shape) == (3, 77, SIDE)
    same = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(shrunk(same), same)


def test_the_outline_lies_on_the_border_of_the_mask() -> None:
    pixels, mask = np.full((20, 20, 3), 100, np.uint8), np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = outlined(pixels, mask)
    assert drawn[10, 10].tolist() == [100] * 3, "inside it is the image itself"
    assert drawn[10, 5].tolist() == list(LINE) and drawn[10, 4].tolist() == list(EDGE)
    assert drawn[0, 0].tolist() == [55] * 3, "and outside it is darker"
    assert (pixels == 100).all()
    assert data_uri(drawn).startswith("data:image/jpeg;base64,")
