"""Which part of a sound counts, and one vector for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32
from torch import Tensor

from pipeline.errors import Reject
from pipeline.evaluation.prompted.tree import Row
from pipeline.inputs.sounds import RATE, Sound
from pipeline.models.audio.spectrum import PADDED_SAMPLES
from pipeline.models.sounds import SoundEncoder

MARGIN = 0.2
"""Seconds before and after a class is said that count too."""
LEAST_PART = 0.04
"""A sound that fills less of the time is not scored."""
LEAST_MASK = 0.01
SECONDS = PADDED_SAMPLES / RATE


def vector_of(
    encode: SoundEncoder, sound: Sound, row: Row, maps: str, heard: str, crop: bool
) -> Float32[Tensor, " embed"]:
    """What an image's patches are compared with.

    Args:
        encode: embeds sounds.
        sound: of the row.
        row: with the time at which its class is said.
        maps: `method`: the embedding of the sound, L2-normalised; `tokens`: the mean over the audio
            tokens that count. The published map is the mean of the products of patch and tokens,
            which is the product with this mean.
        heard: `tiles` or `clips`; see `pipeline.models.audio.spectrum`.
        crop: hear nothing but the class, where its time is known.

    Raises:
        Reject: `short_sound`, or `bad_timing`: nothing is left of it.
    """
    if len(sound.waveform[:PADDED_SAMPLES]) < LEAST_PART * PADDED_SAMPLES:
        raise Reject("short_sound", f"{sound.name}: {sound.seconds:.2f} s")
    if maps == "tokens":
        tokens = encode.tokens(sound)
        counts = counted_times(len(sound.waveform), row.timing, tokens.shape[1])
        return tokens.mean(0)[counts.to(tokens.device)].mean(0)
    if crop and row.timing is not None:
        begin, end = (int(max(0.0, at) * RATE) for at in _with_margin(row.timing))
        if end - begin < RATE // 40 or len(sound.waveform) - begin < RATE // 40:
            raise Reject("bad_timing", f"{sound.name}: {row.timing}")
        part = np.ascontiguousarray(sound.waveform[begin:end])
        sound = replace(sound, waveform=part, digest=f"{sound.digest} {begin} {end}")
    return encode.tiled(sound) if heard == "tiles" else encode([sound])[0]


def counted_times(
    samples: int, timing: tuple[float, float] | None, times: int
) -> Bool[Tensor, " time"]:
    """Which of a sound's tokens count, in the order of time.

    Where it is known when the class is said, those from 0.2 s before to 0.2 s after it ("advanced"
    in DenseAV's code, which fails where that is before the begin or after the end; here that part
    is left out); else those of the sound, and not of the silence that fills it up ("basic").

    Args:
        samples: of the sound at 16 kHz.
        timing: seconds, begin and end.
        times: tokens over 10.26 s.

    Raises:
        Reject: `bad_timing`: nothing is left.
    """
    if timing is None:
        there = torch.zeros(1, 1, PADDED_SAMPLES)
        there[..., :samples] = 1
        return F.interpolate(there, times, mode="linear", align_corners=False)[0, 0] > LEAST_MASK
    begin, end = _with_margin(timing)
    first, last = int(np.floor(times * begin / SECONDS)), int(np.ceil(times * end / SECONDS))
    counts = torch.zeros(times, dtype=torch.bool)
    counts[max(first, 0) : max(last, 0)] = True
    if not counts.any():
        raise Reject("bad_timing", f"{timing}: outside of the first {SECONDS:.2f} s")
    return counts


def _with_margin(timing: tuple[float, float]) -> tuple[float, float]:
    return timing[0] - MARGIN, timing[1] + MARGIN
