"""The demo's vocabulary: everyday things, drawn with a colour-emoji font.

The glyphs come from Noto Color Emoji (SIL Open Font License 1.1; Debian package
`fonts-noto-color-emoji`). To make new scenes takes the font, or the glyphs that
`pipeline.demo.glyphs` has bundled; to use the bundled scenes takes neither.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES: dict[str, str] = {
    "apple": "🍎",
    "banana": "🍌",
    "grapes": "🍇",
    "strawberry": "🍓",
    "watermelon": "🍉",
    "pineapple": "🍍",
    "lemon": "🍋",
    "carrot": "🥕",
    "broccoli": "🥦",
    "mushroom": "🍄",
    "bread": "🍞",
    "cheese": "🧀",
    "pizza": "🍕",
    "hamburger": "🍔",
    "donut": "🍩",
    "cake": "🎂",
    "dog": "🐶",
    "cat": "🐱",
    "lion": "🦁",
    "cow": "🐮",
    "pig": "🐷",
    "frog": "🐸",
    "penguin": "🐧",
    "owl": "🦉",
    "whale": "🐳",
    "octopus": "🐙",
    "crab": "🦀",
    "butterfly": "🦋",
    "ladybug": "🐞",
    "turtle": "🐢",
    "elephant": "🐘",
    "car": "🚗",
    "bus": "🚌",
    "rocket": "🚀",
    "soccer ball": "⚽",
    "basketball": "🏀",
    "guitar": "🎸",
    "drum": "🥁",
    "camera": "📷",
    "book": "📕",
    "gift": "🎁",
    "hat": "🎩",
    "shirt": "👕",
    "sunflower": "🌻",
    "tree": "🌳",
    "cactus": "🌵",
    "star": "⭐",
    "robot": "🤖",
}
"""Class name → glyph. The position of a name (from 1) is its category id."""

FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/System/Library/Fonts/NotoColorEmoji.ttf"),
)
GLYPHS = Path(__file__).parent / "assets" / "glyphs"
"""Sprites as `pipeline.demo.glyphs` bundles them."""
STRIKE = 109
"""The only pixel size in which the font holds its bitmaps (136 by 128 pixels each)."""


def find_font(path: str | Path | None = None) -> Path:
    """Path of the emoji font: `path` if given, else the first of `FONT_PATHS` that exists.

    Raises:
        FileNotFoundError: naming the package to install.
    """
    candidates = (Path(path),) if path else FONT_PATHS
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"no colour-emoji font at {', '.join(map(str, candidates))}: "
        "install the Debian package fonts-noto-color-emoji, or name the file with --font"
    )


def load_sprites(font: str | Path | None = None, glyphs: Path = GLYPHS) -> dict[str, Image.Image]:
    """One RGBA image per class, cropped to its opaque pixels, in the order of `CLASSES`.

    Args:
        font: draw them with this one.
        glyphs: without a font, where they are bundled; where they are not, a font is looked for.

    Raises:
        FileNotFoundError: there is neither.
    """
    if font is None and glyphs.is_dir():
        return {name: _read(glyphs / f"{name}.png") for name in CLASSES}
    return draw_sprites(find_font(font))


def draw_sprites(font: Path) -> dict[str, Image.Image]:
    """The same, drawn with a font."""
    face = ImageFont.truetype(str(font), STRIKE)
    return {name: _draw(glyph, face) for name, glyph in CLASSES.items()}


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        sprite: Image.Image = image.convert("RGBA")
    return sprite


def _draw(glyph: str, face: ImageFont.FreeTypeFont) -> Image.Image:
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), glyph, font=face, embedded_color=True)
    opaque = np.asarray(canvas)[..., 3] >= 128
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    return canvas.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
