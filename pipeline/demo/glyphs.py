"""Bundle the glyphs of the scenes: `python -m pipeline.demo.glyphs LICENCE`.

They are parts of Noto Color Emoji, which the SIL Open Font License lets everybody pass on with its
text beside it. Scenes are then drawn the same, pixel by pixel, where the font is not installed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jsonargparse import auto_cli

from pipeline.demo.sprites import GLYPHS, draw_sprites, find_font


def bundle(licence: Path, font: Path | None = None, output: Path = GLYPHS) -> None:
    """Draw every glyph once, and write it as it was drawn.

    Args:
        licence: text of the font's licence; Debian's package has it as `copyright`.
        font: Noto Color Emoji, where it is not in the usual places.
        output: directory for a PNG per class, and `OFL.txt`.
    """
    sprites = draw_sprites(find_font(font))
    output.mkdir(parents=True, exist_ok=True)
    for name, sprite in sprites.items():
        sprite.save(output / f"{name}.png", optimize=True)
    shutil.copyfile(licence, output / "OFL.txt")


if __name__ == "__main__":
    auto_cli(bundle)
