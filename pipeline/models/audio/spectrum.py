"""What audio towers see: logarithms of the energy in mel bands, frame by frame."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from pipeline.inputs.sounds import RATE, windows

FRAME, HOP = 400, 160
"""Samples: 25 ms, every 10 ms."""
LENGTH = 512
"""Samples of the Fourier transform."""
BANDS = 128
LOWEST, HIGHEST = 20.0, RATE / 2
"""Hz."""
PRE_EMPHASIS = 0.97
SMALLEST = torch.finfo(torch.float32).eps
"""Energies below it are taken for it."""
MEAN, DEVIATION = -4.268, 9.138
"""Of ImageBind's training sounds, in logarithms."""

CLIP_FRAMES = 204
"""Columns that a tower sees at once; a clip has 198 frames."""
PADDED_SAMPLES = 164_200
"""Samples of a sound of DenseAV's protocol: 1,024 frames."""
TILES = 5


def log_mel(waveform: Float32[Tensor, " sample"]) -> Float32[Tensor, "frame band"]:
    """Logarithms of the energies in 128 mel bands, of whole frames only.

    Every frame: its mean is taken off, then 0.97 of the sample before each sample (of the first,
    itself), a symmetric Hann window, zeros up to 512, the power spectrum, triangles between equal
    steps in mel. It is Kaldi's filter bank as ImageBind calls it (torchaudio.compliance.kaldi.fbank
    with use_energy False, window hanning, dither 0).

    Args:
        waveform: at 16 kHz.
    """
    if len(waveform) < FRAME:
        return waveform.new_empty(0, BANDS)
    frames = waveform.unfold(0, FRAME, HOP)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = (frames - PRE_EMPHASIS * before) * _window()
    power = torch.fft.rfft(frames, LENGTH).abs().pow(2)
    energies: Tensor = power @ _triangles().T
    return energies.clamp_min(SMALLEST).log()


@functools.cache
def _window() -> Float32[Tensor, " sample"]:
    return torch.hann_window(FRAME, periodic=False)


@functools.cache
def _triangles() -> Float32[Tensor, "band bin"]:
    """Weights of the bins of a spectrum in each band; the last bin counts nowhere."""
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOWEST, HIGHEST))
    step = (high - low) / (BANDS + 1)
    # float32, and in Kaldi's order: rounded otherwise, quiet bands differ in the fourth digit.
    bands = torch.arange(BANDS)[:, None]
    left, middle, right = (low + (bands + edge) * step for edge in (0.0, 1.0, 2.0))
    mel = 1127.0 * (1.0 + torch.arange(LENGTH // 2) * (RATE / LENGTH) / 700.0).log()
    rising, falling = (mel - left) / (middle - left), (right - mel) / (right - middle)
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return torch.nn.functional.pad(triangles, (0, 1))


def clips(waveform: Float32[Tensor, " sample"]) -> Float32[Tensor, "3 1 128 204"]:
    """The first, the middle and the last two seconds of a sound, as ImageBind sees them.

    A sound that is shorter is seen whole, three times. Columns beyond its end are zeros among the
    logarithms, as in ImageBind's code; that is louder than silence.

    Args:
        waveform: at 16 kHz.
    """
    return spectra_of([waveform[begin:end] for begin, end in windows(len(waveform))])


def spectra_of(clips: Sequence[Float32[Tensor, " sample"]]) -> Float32[Tensor, "clip 1 128 204"]:
    """The same of clips that are cut out already.

    Args:
        clips: of two seconds at the most, at 16 kHz.
    """
    return torch.stack([_columns(clip) for clip in clips])


def _columns(waveform: Float32[Tensor, " sample"]) -> Float32[Tensor, "1 128 204"]:
    bands = log_mel(waveform - waveform.mean()).T[:, :CLIP_FRAMES]
    padded = torch.nn.functional.pad(bands, (0, CLIP_FRAMES - bands.shape[1]))
    return _standardised(padded)[None]


def tiles(waveform: Float32[Tensor, " sample"]) -> Float32[Tensor, "5 1 128 204"]:
    """The first 10.26 s of a sound in five parts, as DenseAV's evaluation shows it to ImageBind.

    A shorter sound is filled up with silence. Of 1,024 frames the last four are not seen.

    Args:
        waveform: at 16 kHz.
    """
    there = waveform[:PADDED_SAMPLES]
    padded = torch.nn.functional.pad(there, (0, PADDED_SAMPLES - len(there)))
    bands = _standardised(log_mel(padded - padded.mean()))
    seen = bands[: TILES * CLIP_FRAMES].reshape(TILES, CLIP_FRAMES, BANDS)
    return seen.transpose(1, 2)[:, None].contiguous()


def _standardised(bands: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return (bands - MEAN) / DEVIATION
