"""Full layer-wise relevance propagation, down to the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from legrad.baselines.recording import Recording
from legrad.baselines.relevance import RelevanceMethod
from legrad.baselines.rules import Rules, patch_embedding


@dataclass(frozen=True)
class PixelRecording(Recording):
    """A recording of all blocks together with what the patch embedding saw."""

    images: Float[Tensor, "B 3 H W"]


class Lrp(RelevanceMethod):
    """Relevance of every pixel, summed over colours: signed maps of the size of the image.

    Binder et al. (arXiv 1604.00825) with the rules of Chefer et al. (arXiv 2012.09838) for LRP.
    Not for models in half precision.
    """

    takes_layers: ClassVar[bool] = False
    encoding = PixelRecording
    pixel_maps = True
    rules = Rules(own=False)

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> PixelRecording:
        """One forward pass with explicit attention, and the images."""
        recording = super().encode(images)
        return PixelRecording(**vars(recording), images=images.to(self._tower.dtype))

    def _size(self, recording: Recording) -> tuple[int, int]:
        assert isinstance(recording, PixelRecording)
        return recording.images.shape[-2], recording.images.shape[-1]

    def _relevance(
        self, recording: Recording, text: Float[Tensor, "G E"], images: Int[Tensor, " G"]
    ) -> Float[Tensor, "G H W"]:
        assert isinstance(recording, PixelRecording)
        *_, first = self._propagate(recording, text, images)
        pixels = recording.images[images]
        tokens = self._tower.unplaced(pixels)
        placed = self._tower.placed(recording.grid).expand_as(tokens)
        r, _ = self.rules.add(tokens, placed, first.stream)
        patches = r[:, self._tower.prefix_count :].transpose(1, 2)
        on_grid = patches.reshape(len(pixels), -1, *recording.grid)
        return patch_embedding(pixels, self._tower.conv.weight, on_grid)
