"""Rows of maps as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline import storage
from pipeline.errors import naming
from pipeline.figures.config import LayersConfig, MethodsConfig
from pipeline.figures.maps import Row, rows_of
from pipeline.outputs.preview import CAPTION, CELL, INK, MARGIN, PAPER, captioned, overlay

NO_FORM = 235
"""Grey of a cell whose method has no form for the model."""


def draw(config: LayersConfig | MethodsConfig) -> Image.Image:
    """Make the maps, draw them and write the picture.

    Raises:
        ConfigError: see `rows_of`; or the picture cannot be written.
        ModelError: a model does not load.
    """
    picture = sheet(rows_of(config))
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    with naming(f"--output {storage.public(config.output)}"):
        storage.write_bytes(config.output, png.getvalue())
    return picture


def sheet(rows: Sequence[Row]) -> Image.Image:
    """A line with the model above each row: the image, then heat as colour over it."""
    strips = [_strip(row) for row in rows]
    width = max(strip.width for strip in strips)
    drawn = Image.new("RGB", (width, sum(s.height + MARGIN for s in strips) + MARGIN), PAPER)
    top = MARGIN
    for strip in strips:
        drawn.paste(strip, (0, top))
        top += strip.height + MARGIN
    return drawn


def _strip(row: Row) -> Image.Image:
    cells = [captioned(row.pixels, row.prompt)]
    for title, heat in row.heats.items():
        if heat is None:
            empty = np.full_like(row.pixels, NO_FORM)
            cells.append(captioned(empty, f"{title}: no form"))
        else:
            cells.append(captioned(overlay(row.pixels, heat), title))
    size = (len(cells) * (CELL + MARGIN) + MARGIN, cells[0].height + CAPTION)
    strip = Image.new("RGB", size, PAPER)
    font = ImageFont.load_default(13)
    ImageDraw.Draw(strip).text((MARGIN, 2), row.model, fill=INK, font=font)
    for position, drawn in enumerate(cells):
        strip.paste(drawn, (MARGIN + position * (CELL + MARGIN), CAPTION))
    return strip
