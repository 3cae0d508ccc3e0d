"""The contact sheet shows what a run has stored."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.config import AnnotateConfig, MaskConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.preview import WIDTH, draw_preview


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
