"""Sounds at another rate, as the published preprocessing of audio models makes them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

CROSSINGS = 6
"""Zero crossings of the low-pass filter on each side of its middle."""
ROLL_OFF = 0.99
"""Cut-off of the filter, as a part of the lower of the two Nyquist frequencies."""
CHUNK = 1 << 15
"""Samples that are made at once, so that a long sound takes little memory."""


def resample(
    waveform: Float32[np.ndarray, " sample"], rate: int, to: int
) -> Float32[np.ndarray, " resampled"]:
    """Band-limited interpolation: a sinc with a squared-cosine window, on a grid of phases.

    The values are those of `torchaudio.functional.resample` with its defaults (lowpass_filter_width
    6, rolloff 0.99, sinc_interp_hann). There, each phase has a kernel as long as the greatest
    common period of both rates, zero but for the middle; only that middle is made here, so that
    44,101 Hz costs no more than 44,100.

    Args:
        waveform: samples at `rate`.
        rate: samples per second.
        to: samples per second that are wanted.
    """
    if rate == to or not len(waveform):
        return waveform
    common = math.gcd(rate, to)
    period, phases = rate // common, to // common  # samples in, and out, that repeat the phases
    cut_off = min(period, phases) * ROLL_OFF
    reach = math.ceil(CROSSINGS * period / cut_off)
    middle = np.arange(phases) * period
    first = middle // phases - reach
    taps = np.arange(2 * reach + 2)
    kernels = _kernels(first[:, None] + taps - (middle / phases)[:, None], cut_off / period)
    padded = np.pad(waveform, (reach, 2 * reach + period + 2))
    made = np.empty(-(-phases * len(waveform) // period), np.float32)
    for start in range(0, len(made), CHUNK):
        block, phase = np.divmod(np.arange(start, min(start + CHUNK, len(made))), phases)
        begins = block * period + first[phase] + reach
        values = padded[begins[:, None] + taps]
        made[start : start + CHUNK] = np.einsum("st,st->s", values, kernels[phase])
    return made


def _kernels(distance: np.ndarray, scale: float) -> Float32[np.ndarray, "phase tap"]:
    """Weights of samples at some distances from where a sample is wanted, in samples."""
    time = np.clip(distance * scale, -CROSSINGS, CROSSINGS)
    window = np.cos(time * np.pi / CROSSINGS / 2) ** 2
    kernels: np.ndarray = (window * scale * np.sinc(time)).astype(np.float32)
    return kernels
