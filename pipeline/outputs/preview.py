"""A contact sheet: images, heatmap overlays and masks, with prompts and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from legrad import HeatOrder
from pipeline.errors import Reject
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Rejected, Sample
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import decode, stored_heatmap
from pipeline.outputs.schema import heat_order

CELL = 200  # pixels, width of a picture
MARGIN, CAPTION = 8, 22
PROMPTS = 4
"""Prompts shown per image: those with the highest scores."""
WIDTH = (CELL + MARGIN) * (1 + 2 * PROMPTS)
INK, PAPER, FADED = (25, 25, 25), (255, 255, 255), 0.25
STOPS = np.array(
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    dtype=np.float32,
)
"""Colours of heat 0, 0.2, … 1: dark violet over red to pale yellow."""

Pixels = UInt8[np.ndarray, "height width 3"]
Row = Mapping[str, Any]


def draw_preview(output: str, shard: Shard, images: int) -> Image.Image:
    """Draw the first annotated images of a shard, one row each.

    A row is the image, then for each prompt the heat over the image (the image alone where the run
    stored no heat) and the mask's cut-out.

    Args:
        output: location of a run's results.
        shard: one that the run has committed.
        images: rows at the most.
    """
    found = islice(_annotated(output, shard), images)
    rows = [_row(*annotated) for annotated in found]
    sheet = Image.new("RGB", (WIDTH, sum(row.height for row in rows) + MARGIN), PAPER)
    top = MARGIN
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _annotated(output: str, shard: Shard) -> Iterator[tuple[Pixels, Sequence[Row], HeatOrder]]:
    """Pixels, annotation rows and order of the steps to heat of every sample that has a mask."""
    ledger = Ledger(output)
    table = ledger.read("annotations", shard.name)
    order, rows = heat_order(table), table.to_pylist()
    by_sample = {index: list(group) for index, group in groupby(rows, lambda r: r["sample_index"])}
    read = ShardReader.of_run(ledger.identity(), lambda raw: by_sample.get(raw.index))
    for sample in read(shard):
        if isinstance(sample, Sample):
            yield sample.pixels.permute(1, 2, 0).numpy(), sample.wanted, order
        elif isinstance(sample, Rejected) and sample.index in by_sample:
            raise Reject(sample.reason, f"{sample.key}: {sample.detail}")


def _row(pixels: Pixels, annotations: Sequence[Row], order: HeatOrder) -> Image.Image:
    shown = sorted(annotations, key=lambda row: -row["score"])[:PROMPTS]
    cells = [captioned(pixels, f"prompts: {len(annotations)}")]
    for row in shown:
        title = f"{row['category'] or row['prompt']}  {row['score']:.2f}"
        heated = pixels
        if row["heat"] is not None:
            heated = overlay(pixels, stored_heatmap(row, order))
        cells.append(captioned(heated, title))
        cells.append(captioned(_cut_out(pixels, decode(row["segmentation"])), "mask"))
    strip = Image.new("RGB", (WIDTH, cells[0].height), PAPER)
    for position, cell in enumerate(cells):
        strip.paste(cell, (MARGIN // 2 + position * (CELL + MARGIN), 0))
    return strip


def captioned(pixels: Pixels, title: str) -> Image.Image:
    """A picture scaled to the width of a cell, with a title below."""
    picture = Image.fromarray(pixels)
    height = max(1, round(picture.height * CELL / picture.width))
    cell = Image.new("RGB", (CELL, height + CAPTION), PAPER)
    cell.paste(picture.resize((CELL, height), Image.Resampling.BILINEAR))
    font = ImageFont.load_default(13)
    ImageDraw.Draw(cell).text((2, height + 2), title, fill=INK, font=font)
    return cell


def overlay(pixels: Pixels, heat: Float[np.ndarray, "height width"]) -> Pixels:
    """Heat as colour over a grey copy of the image."""
    position = heat * (len(STOPS) - 1)
    lower = position.astype(int).clip(max=len(STOPS) - 2)
    mix = (position - lower)[..., None]
    colour = STOPS[lower] * (1 - mix) + STOPS[lower + 1] * mix
    grey = pixels.mean(-1, keepdims=True)
    blended: Pixels = (0.65 * colour + 0.35 * grey).astype(np.uint8)
    return blended


def _cut_out(pixels: Pixels, mask: np.ndarray) -> Pixels:
    """The foreground as it is, the rest faded to white."""
    faded = FADED * pixels + (1 - FADED) * 255
    return np.where(mask[..., None], pixels, faded).astype(np.uint8)
