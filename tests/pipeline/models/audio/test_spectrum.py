"""The filter bank against known numbers and torchaudio, and which parts of a sound are seen."""

import math

import numpy as np
import pytest
import torch

from pipeline.models.audio.spectrum import clips, log_mel, tiles

LOUD = -6.0
"""Logarithm of an energy that is no rounding. What is left is the mel of a bin in float32, which
torchaudio has too: a ten-thousandth where bands are as narrow as a bin."""


def tones() -> torch.Tensor:
    n = np.arange(32_000)
    first, second = (np.sin(2 * np.pi * hertz * n / 16_000) for hertz in (440, 3000))
    waveform = torch.from_numpy((0.5 * first + 0.25 * second + 0.1).astype(np.float32))
    return waveform - waveform.mean()


def test_the_numbers_of_torchaudio() -> None:
    """Made with torchaudio 2.11.0's compliance.kaldi.fbank, with ImageBind's arguments."""
    bands = log_mel(tones())
    assert bands.shape == (198, 128)
    close = {"abs": 1e-5, "rel": 0}
    # These four are next to nothing, what rounding leaves of a signal that is e^20 times as strong.
    # Processors round otherwise: on one, three of them were up to 1.7e-4 off, and so were those of
    # torchaudio there. No triangle has a bin in the band between them, so that it is exact.
    quiet = {0: -14.093846, 1: -15.599944, 2: -12.156543, 4: -11.496102}
    for band, value in quiet.items():
        assert bands[0, band].item() == pytest.approx(value, abs=5e-4, rel=0)
    assert bands[0, 3].item() == pytest.approx(-15.942385, **close)
    assert bands[100, 20:25].tolist() == pytest.approx(
        [-0.359623, 3.079322, 3.418580, 3.908807, 3.536504], **close
    )
    assert bands.min().item() == pytest.approx(-15.942385, **close)
    assert bands.max().item() == pytest.approx(6.831330, **close)
    assert bands.mean().item() == pytest.approx(-11.673147, abs=5e-5)


def literal(waveform: torch.Tensor) -> np.ndarray:
    """The same by the definition, in float64 and with a triangle for each band."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 130)
    mel = 1127 * np.log1p(np.arange(256) * 16_000 / 512 / 700)
    triangles = np.stack([np.interp(mel, edges[i : i + 3], [0, 1, 0], 0, 0) for i in range(128)])
    found = []
    for start in range(0, len(waveform) - 399, 160):
        frame = waveform[start : start + 400].double().numpy()
        frame = frame - frame.mean()
        frame = (frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])) * hann
        power = np.abs(np.fft.rfft(frame, 512)[:256]) ** 2
        found.append(np.log(np.maximum(triangles @ power, np.finfo(np.float32).eps)))
    return np.stack(found)


def test_every_band_that_is_no_rounding() -> None:
    """Of two tones, and of noise, which leaves no band out but the one without a bin."""
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    for waveform, least in ((tones(), 0.1), (noise, 0.98)):
        ours, expected = log_mel(waveform).double().numpy(), literal(waveform)
        loud = expected > LOUD
        assert loud.mean() > least
        np.testing.assert_allclose(ours[loud], expected[loud], rtol=0, atol=2e-4)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-2)


def test_silence_is_the_smallest_number() -> None:
    bands = log_mel(torch.zeros(164_200))
    assert bands.shape == (1024, 128)
    assert bands.unique().tolist() == pytest.approx([math.log(torch.finfo(torch.float32).eps)])


def test_torchaudio_itself() -> None:
    kaldi = pytest.importorskip(
        "torchaudio.compliance.kaldi", reason="torchaudio is for this test alone"
    )
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    for waveform in (tones(), noise):
        theirs = kaldi.fbank(
            waveform[None],
            htk_compat=True,
            sample_frequency=16_000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        )
        torch.testing.assert_close(log_mel(waveform), theirs, rtol=0, atol=1e-5)


def test_a_clip_ends_in_zeros_and_a_tile_in_silence() -> None:
    clip = clips(tones()[:16_000])
    assert clip[:, 0, :, 98:].unique().tolist() == pytest.approx([0.467061], abs=1e-6)
    silence = (math.log(torch.finfo(torch.float32).eps) + 4.268) / 9.138
    tile = tiles(tones()[:16_000])
    assert tile[1:].unique().tolist() == pytest.approx([silence], abs=1e-6)


def test_clips_are_the_first_the_middle_and_the_last_two_seconds() -> None:
    """Three levels of one tone, two seconds each, but for the edges between them."""
    n = torch.arange(96_000)
    loud = 10.0 ** (n // 32_000 - 2)
    seen = clips(loud * torch.sin(2 * math.pi * 1000 * n / 16_000))
    energies = [clip[0, :, :198].max().item() for clip in seen]
    step = 2 * math.log(10) / 9.138
    assert np.diff(energies) == pytest.approx([step, step], abs=1e-3)


@pytest.mark.parametrize("samples", [32_000, 20_000, 401])
def test_a_short_sound_is_seen_whole_three_times(samples: int) -> None:
    first, second, third = clips(tones()[:samples])
    assert torch.equal(first, second) and torch.equal(second, third)


def test_tiles_are_parts_of_one_spectrum() -> None:
    waveform = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    seen = waveform[:164_200]
    expected = (log_mel(seen - seen.mean()) + 4.268) / 9.138
    found = torch.cat(list(tiles(waveform)[:, 0]), dim=1).T
    assert torch.equal(found, expected[:1020])
