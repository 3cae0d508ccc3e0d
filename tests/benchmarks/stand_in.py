"""A small model to time, and something in place of the published package."""

import sys
from pathlib import Path

TINY = {
    "embed_dim": 16,
    "vision_cfg": {
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
        "image_size": 32,
    },
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1},
}

STAND_IN = """
import torch


class LeWrapper:
    def __init__(self, model, layer_index):
        print("the published package prints while it wraps")
        self.model, self.layer_index = model, layer_index

    def encode_image(self, image):
        self.image = image

    def compute_legrad(self, text, image=None):
        image = self.image if image is None else image
        tokens = self.model.visual(image) @ text.T * self.layer_index
        return tokens[..., None, None].expand(-1, -1, *image.shape[2:])
"""


def make_stand_in(tmp_path: Path) -> Path:
    """An "interpreter" whose `legrad` is not this project's."""
    package = tmp_path / "elsewhere" / "legrad"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    python = tmp_path / "python"
    start = f"import sys, runpy; sys.path.insert(0, {str(package.parent)!r}); "
    start += 'sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name="__main__")'
    (tmp_path / "start.py").write_text(start)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/start.py" "$@"\n')
    python.chmod(0o755)
    return python
