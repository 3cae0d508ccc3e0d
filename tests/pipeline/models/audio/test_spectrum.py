"""The filter bank against known numbers and torchaudio, and which parts of a sound are seen."""

import math

import numpy as np
import pytest
import torch

from pipeline.models.audio.spectrum import clips, log_mel, tiles


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
    # Next to nothing is left here of a signal of 1e3: it is rounding, which other processors do
    # otherwise; torchaudio's own numbers on the same one are these (see below).
    quiet = [-14.093846, -15.599944, -12.156543, -15.942385, -11.496102]
    assert bands[0, :5].tolist() == pytest.approx(quiet, abs=5e-4, rel=0)
    assert bands[100, 20:25].tolist() == pytest.approx(
        [-0.359623, 3.079322, 3.418580, 3.908807, 3.536504], **close
    )
    assert bands.min().item() == pytest.approx(-15.942385, **close)
    assert bands.max().item() == pytest.approx(6.831330, **close)
    assert bands.mean().item() == pytest.approx(-11.673147, abs=5e-5)


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
