"""From sounds to embeddings in the joint space of a model that hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from pipeline.inputs.sounds import Sound
from pipeline.models.audio.spectrum import spectra_of, tiles
from pipeline.models.audio.tower import AudioTower

KEPT = 50_000
"""Sounds whose embeddings are kept between calls."""


class SoundEncoder:
    """Embeds sounds, each distinct one once, in float32. Not thread-safe.

    A sound goes through the tower alone, so that its embedding does not depend on which others are
    embedded with it.
    """

    def __init__(self, tower: AudioTower, device: torch.device) -> None:
        """Take a tower to a device."""
        self._tower, self._device = tower.to(device), device
        self._known: dict[tuple[str, str], Tensor] = {}

    @property
    def embed_width(self) -> int:
        """Length of an embedding."""
        return self._tower.sizes.embed

    def __call__(self, sounds: Sequence[Sound]) -> Float32[Tensor, "sound embed"]:
        """L2-normalised embeddings: the mean over three clips of their normalised vectors."""
        rows = [self._one(sound) for sound in sounds]
        if not rows:
            return torch.empty(0, self.embed_width, device=self._device)
        return torch.stack(rows)

    def _one(self, sound: Sound) -> Float32[Tensor, " embed"]:
        return self._once(
            (sound.digest, "clips"),
            lambda: self._mean(spectra_of([torch.from_numpy(clip) for clip in sound.clips()])),
        )

    def _once(self, key: tuple[str, str], embed: Callable[[], Tensor]) -> Tensor:
        """What is known by the digest of a sound and by what is made of it, or is made now."""
        if key not in self._known:
            self._known[key] = embed()
            if len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return self._known[key]

    def tiled(self, sound: Sound) -> Float32[Tensor, " embed"]:
        """The embedding by DenseAV's protocol: over five parts of 10 s, silence filled up.

        The code of that protocol takes the mean of vectors of unit length too.
        """
        return self._once(
            (sound.digest, "tiles"), lambda: self._mean(tiles(torch.from_numpy(sound.waveform)))
        )

    @torch.inference_mode()
    def tokens(self, sound: Sound) -> Float32[Tensor, "band time embed"]:
        """Every token of the five parts of `tiles`, L2-normalised, side by side in time.

        They are not kept: of ImageBind they are 4.7 MB for each sound.
        """
        bands, frames = self._tower.sizes.grid
        tokens = self._tower.tokens(tiles(torch.from_numpy(sound.waveform)).to(self._device))
        grid = F.normalize(tokens[:, 1:], dim=-1).view(len(tokens), bands, frames, -1)
        return grid.permute(1, 0, 2, 3).flatten(1, 2)

    @torch.inference_mode()
    def _mean(self, spectra: Float32[Tensor, "clip 1 128 204"]) -> Float32[Tensor, " embed"]:
        vectors = F.normalize(self._tower(spectra.to(self._device)), dim=-1)
        return F.normalize(vectors.mean(0), dim=-1)
