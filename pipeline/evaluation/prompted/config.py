"""What `evaluate.py prompted` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig

PUBLISHED = "imagebind_huge"
"""The model of the paper's rows."""


@dataclass(frozen=True)
class PromptedConfig(EvaluationConfig):
    """Scoring by ADE20K Sound Prompted or Speech Prompted: is a class found by its sound?"""

    root: str = ""
    """Folder of the data set: prompted_segmentation.csv, frames, annotations and audio."""
    kind: Literal["sound", "speech"] = "sound"
    """sound: of the class, from VGGSound; speech: its name in a sentence."""
    maps: Literal["method", "tokens"] = "method"
    """method: those of --method for the embedding of the sound; tokens: products of the last
    layer's patches with the tokens of the sound, the published baseline."""
    heard: Literal["tiles", "clips"] = "tiles"
    """What the embedding of a sound is the mean of: tiles: its first 10 s in five parts, as in
    DenseAV's protocol; clips: its first, middle and last 2 s, as ImageBind itself has it."""
    crop: bool = False
    """speech: hear nothing but the class, from 0.2 s before it is said to 0.2 s after."""
    normalisation: Literal["global", "image"] = "global"
    """global: one minimum and one maximum for all maps, as published; image: those of each map."""

    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = (*EvaluationConfig.READ_BY_WORKERS, "root")
    NO_RESULT: ClassVar[tuple[str, ...]] = (*EvaluationConfig.NO_RESULT, "root")
    IMAGE_SIZE: ClassVar[int | None] = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root:
            raise ConfigError("--root is needed: the folder of ADE20K Sound or Speech Prompted")
        if self.input:
            raise ConfigError("--input: the images are those of --root; leave it out")
        if self.crop and (self.kind != "speech" or self.maps == "tokens"):
            raise ConfigError("--crop is for --kind speech and the maps of a method")
        if not self.model.hears:
            raise ConfigError(
                f"--model.name {self.model.name} has no audio tower; give imagebind_huge"
            )
        if not self.views.plain:
            raise ConfigError("--views: images are cropped here as published; leave it out")

    @property
    def is_published(self) -> bool:
        """Whether all but the weights, which are a file, is as in the paper."""
        model = self.model
        return (
            (model.name, model.image_size or self.IMAGE_SIZE) == (PUBLISHED, self.IMAGE_SIZE)
            and model.pretrained != "random"
            and (self.heard, self.crop, self.normalisation) == ("tiles", False, "global")
            and (
                self.maps == "tokens"
                or (self.method, self.options, self.layers) == ("legrad", {}, None)
            )
        )

    def identity(self) -> dict[str, Any]:
        """The settings that decide about counts, as JSON values."""
        return {"metric": "prompted", **super().identity()}
