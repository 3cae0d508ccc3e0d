"""The demo's CLIP: an ordinary open_clip model, found through open_clip's own config mechanism."""

from __future__ import annotations

from pathlib import Path

import open_clip
from jaxtyping import Float, Int
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file
from torch import Tensor

from pipeline.config import DEMO_MODEL
from pipeline.models.audio.tower import AudioSizes, AudioTower

ASSETS = Path(__file__).parents[1] / "demo" / "assets"
CONFIG = ASSETS / f"{DEMO_MODEL}.json"
WEIGHTS = ASSETS / f"{DEMO_MODEL}.safetensors"
AUDIO_WEIGHTS = ASSETS / f"{DEMO_MODEL}-audio.safetensors"
AUDIO_SIZES = AudioSizes(embed=128, width=48, layers=2, heads=4, stride=16)
"""Of the demo's audio tower."""
TEMPLATE = "a photo of a {}."
"""The one sentence the model was trained with."""


def register() -> None:
    """Make `open_clip.create_model("legrad-demo")` work in this process."""
    open_clip.add_model_config(CONFIG)


def create(pretrained: str | Path | None = WEIGHTS) -> open_clip.CLIP:
    """The demo's CLIP in float32 and evaluation mode; `pretrained=None` for random weights."""
    register()
    model = open_clip.create_model(DEMO_MODEL, pretrained=pretrained and str(pretrained))
    return model.eval()


def create_audio() -> AudioTower:
    """The demo's audio tower, in float32 and evaluation mode."""
    tower = AudioTower(AUDIO_SIZES)
    tower.load_state_dict(load_file(AUDIO_WEIGHTS))
    return tower.eval().requires_grad_(False)


def tokenize(texts: list[str]) -> Int[Tensor, "text context"]:
    """Token ids of `texts`, cut at the model's context length."""
    register()
    tokens: Tensor = open_clip.get_tokenizer(DEMO_MODEL)(texts)
    return tokens


def normalise(
    pixels: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """From RGB values in 0..255 to what the model takes."""
    mean = pixels.new_tensor(OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = pixels.new_tensor(OPENAI_DATASET_STD).view(3, 1, 1)
    return (pixels / 255 - mean) / std
