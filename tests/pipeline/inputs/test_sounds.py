"""Sounds from files: every format, every reason why one cannot be used, and resampling."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Reject
from pipeline.inputs.resampling import resample
from pipeline.inputs.sounds import RATE, Sound, read_sound, windows


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return np.float32(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate))


def encoded(samples: np.ndarray, rate: int = RATE, format: str = "WAV", **options: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_every_format_is_read_at_one_rate(format: str, rate: int) -> None:
    sound = read_sound(encoded(tone(1.0, rate), rate, format), "bell", 10.0)
    assert sound.name == "bell"
    assert abs(sound.seconds - 1) < 0.1  # MP3 fills its frames
    spectrum = np.abs(np.fft.rfft(sound.waveform))
    heard = spectrum.argmax() * RATE / len(sound.waveform)
    assert abs(heard - 440) < 2


def test_the_first_channel_is_heard() -> None:
    left, right = tone(0.5), tone(0.5, hertz=1000)
    sound = read_sound(encoded(np.stack([left, right], 1), subtype="FLOAT"), "both", 10.0)
    assert np.array_equal(sound.waveform, left)


def test_sounds_are_told_apart_by_their_contents() -> None:
    first, again, other = (
        read_sound(encoded(tone(0.5, hertz=hertz)), name, 10.0)
        for hertz, name in ((440, "a"), (440, "b"), (441, "a"))
    )
    assert first.digest == again.digest != other.digest


NAN = np.full(16_000, np.nan, np.float32)


def claiming(data: bytes, at: int, value: int, width: int = 4) -> bytes:
    """A WAV whose header says something else."""
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", "bad_sound", "does not decode: the file is empty"),
        (b"no sound at all" * 100, "bad_sound", "does not decode"),
        (encoded(tone(1.0))[:30], "bad_sound", "cut short: 30 bytes of 32,044"),
        (encoded(tone(1.0))[:-1], "bad_sound", "cut short: 32,043 bytes of 32,044"),
        (encoded(tone(1.0), format="OGG")[:60], "bad_sound", "does not decode"),
        (encoded(tone(1.0) * 0), "empty_sound", "silence alone"),
        (encoded(NAN, subtype="FLOAT"), "bad_sound", "no numbers"),
        (encoded(tone(1.0) * 1e30, subtype="FLOAT"), "bad_sound", "samples up to 5e+29, where 1"),
        (claiming(encoded(tone(1.0)), 22, 60_000, 2), "bad_sound", "decode: Too many channels"),
        (encoded(tone(1.0), rate=900), "bad_sound", "900 samples a second, not 1000 to 192000"),
        (encoded(tone(0.0)), "empty_sound", "0 samples, less than 25 ms"),
        (encoded(tone(0.0001)), "empty_sound", "1 samples, less than 25 ms"),
        (encoded(tone(0.02)), "empty_sound", "320 samples, less than 25 ms"),
        (encoded(tone(3.01)), "long_sound", "more than 3 s, see --prompts.max_seconds"),
    ],
    ids=[
        "nothing",
        "text",
        "cut",
        "one byte less",
        "cut ogg",
        "silence",
        "nan",
        "loud",
        "channels",
        "slow",
        "empty",
        "one",
        "short",
        "long",
    ],
)
def test_a_sound_that_cannot_be_used_says_why(data: bytes, reason: str, said: str) -> None:
    with pytest.raises(Reject, match=reason) as rejected:
        read_sound(data, "dog.wav", 3.0)
    assert rejected.value.reason == reason
    assert rejected.value.detail.startswith("dog.wav: ")
    assert "\n" not in rejected.value.detail and "object at" not in rejected.value.detail
    assert said in rejected.value.detail


@pytest.mark.parametrize("rate", [8_000, 96_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_kind_of_sample_is_the_same_sound(rate: int, subtype: str) -> None:
    stereo = np.stack([tone(0.5, rate), np.zeros(rate // 2, np.float32)], 1)
    sound = read_sound(encoded(stereo, rate, subtype=subtype), "both", 10.0)
    np.testing.assert_allclose(sound.waveform[100:-100], tone(0.5)[100:-100], atol=0.03)


@pytest.mark.parametrize("claimed", [0x7FFF_FFF0, 0xFFFF_FFFF], ids=["2 GB", "4 GB"])
def test_a_length_that_is_not_there_takes_no_memory(claimed: int) -> None:
    """As programs write it that stream: what is there is heard."""
    data = claiming(claiming(encoded(tone(1.0)), 4, claimed), 40, claimed)
    np.testing.assert_allclose(read_sound(data, "x", 10.0).waveform, tone(1.0), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_damaged_files_are_rejected_or_read(data: st.DataObject) -> None:
    whole = encoded(tone(0.1), format=data.draw(st.sampled_from(["WAV", "FLAC", "OGG"])))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        sound = read_sound(bytes(damaged), "x", 10.0)
    except Reject as rejected:
        assert rejected.reason in ("bad_sound", "empty_sound", "long_sound")
    else:
        assert np.isfinite(sound.waveform).all() and len(sound.waveform) >= 400


def literal(waveform: np.ndarray, rate: int, to: int) -> np.ndarray:
    """The formula in float64, every output from every input."""
    common = math.gcd(rate, to)
    o, n = rate // common, to // common
    base = min(o, n) * 0.99
    made = []
    for k in range(math.ceil(n * len(waveform) / o)):
        block, i = divmod(k, n)
        j = np.arange(len(waveform)) - block * o
        t = np.clip((-i / n + j / o) * base, -6, 6)
        weights = np.cos(np.pi * t / 12) ** 2 * (base / o) * np.sinc(t)
        made.append((weights * waveform).sum())
    return np.array(made)


@pytest.mark.parametrize(
    ("rate", "to"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (11, 7), (3, 16)]
)
@pytest.mark.parametrize("length", [1, 50, 1000])
def test_resampling_is_the_formula(rate: int, to: int, length: int) -> None:
    waveform = np.random.default_rng(rate + length).standard_normal(length).astype(np.float32)
    expected = literal(waveform.astype(np.float64), rate, to)
    found = resample(waveform, rate, to)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_rates_without_common_divisor_take_little_memory() -> None:
    waveform = tone(1.0, 44_101)
    found = resample(waveform, 44_101, RATE)
    np.testing.assert_allclose(found[100:-100], tone(1.0)[100:-100], atol=2e-3)


@given(st.integers(1, 20 * RATE))
@settings(max_examples=50)
def test_of_a_sound_only_its_clips_are_kept(length: int) -> None:
    """Three clips, which are the same whether the rest is there or not."""
    whole = Sound("a", "digest", np.arange(length, dtype=np.float32))
    heard = whole.heard()
    assert (heard.seconds, heard) == (whole.seconds, replace(whole, length=heard.length))
    assert len(heard.waveform) <= 6 * RATE + 2
    assert heard.heard() is heard
    for clip, kept, (begin, end) in zip(whole.clips(), heard.clips(), windows(length), strict=True):
        assert np.array_equal(clip, kept)
        assert np.array_equal(clip, np.arange(begin, end, dtype=np.float32))


def test_five_minutes_are_heard_at_their_beginning_in_their_middle_and_at_their_end() -> None:
    long = Sound("a", "digest", np.arange(300 * RATE, dtype=np.float32)).heard()
    assert long.waveform.nbytes == 3 * 2 * RATE * 4 and long.seconds == 300
    assert [clip[0] / RATE for clip in long.clips()] == [0, 149, 298]
