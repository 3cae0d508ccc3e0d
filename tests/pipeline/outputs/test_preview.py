"""The contact sheet shows what a run has stored."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.config import AnnotateConfig, MaskConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.preview import CELL, WIDTH, draw_preview


@pytest.mark.parametrize("heat", [True, False])
def test_a_row_per_image(
    heat: bool,
    tar: Callable[..., bytes],
    labelled: Callable[..., list[tuple[str, bytes]]],
    write_shards: Callable[..., str],
    make_config: Callable[..., AnnotateConfig],
    annotate: Callable[..., Ledger],
) -> None:
    names = ["dog", "собака", "cat", "car", "book", "tree"]  # more than there is room for
    samples = [labelled("a", names), labelled("b", []), labelled("c", ["dog"])]
    folder = write_shards(a=tar(member for sample in samples for member in sample))
    ledger = annotate(make_config(input=folder, mask=MaskConfig(heat=heat)))
    (shard,) = find_shards([folder])
    sheet = draw_preview(ledger.output, shard, 5)
    one = draw_preview(ledger.output, shard, 1)
    assert sheet.width == one.width == WIDTH
    assert sheet.height - 8 == 2 * (one.height - 8)  # of the image without labels there is none
    pixels = np.asarray(sheet)
    coloured = np.ptp(pixels.astype(int), axis=-1).max(0) > 60
    assert coloured[: WIDTH // 9].any(), "the image"
    assert coloured[WIDTH // 9 : 2 * WIDTH // 9].any(), "the heat over it"


def test_images_are_read_as_the_run_read_them(
    tar: Callable[..., bytes],
    labelled: Callable[..., list[tuple[str, bytes]]],
    picture: Callable[..., bytes],
    write_shards: Callable[..., str],
    make_config: Callable[..., AnnotateConfig],
    annotate: Callable[..., Ledger],
) -> None:
    members = labelled("photo.000", ["dog"]) + labelled("photo.001", ["cat"])
    members += [(f"photo.00{n}.png", picture(n, size=(9, 40), format="PNG")) for n in (0, 1)]
    without = [member for member in members if not member[0].endswith(".jpg")]
    folder = write_shards(both=tar(sorted(members)), one=tar(sorted(without)))
    sheets = []
    for name in ("both", "one"):
        place = {"input": f"{folder}/{name}.tar", "output": f"{folder}/out-{name}"}
        ledger = annotate(make_config(**place, key_end="last_dot", image_field="png"))
        sheets.append(np.asarray(draw_preview(ledger.output, find_shards([place["input"]])[0], 5)))
    assert len(sheets[0]) > 2 * 40 * CELL / 9, "two of them"
    np.testing.assert_array_equal(*sheets)


def test_a_run_without_masks_has_an_empty_sheet(
    tar: Callable[..., bytes],
    labelled: Callable[..., list[tuple[str, bytes]]],
    write_shards: Callable[..., str],
    make_config: Callable[..., AnnotateConfig],
    annotate: Callable[..., Ledger],
) -> None:
    folder = write_shards(a=tar(labelled("a", [])))
    ledger = annotate(make_config(input=folder))
    sheet = draw_preview(ledger.output, find_shards([folder])[0], 5)
    assert np.asarray(sheet).min() == 255
