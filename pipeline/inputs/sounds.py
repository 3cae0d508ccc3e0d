"""Sounds that are looked for in images: from an encoded file to a waveform at one rate."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace

import numpy as np
import soundfile
from jaxtyping import Float32

from pipeline.errors import Reject, unwrapped
from pipeline.inputs.resampling import resample
from pipeline.storage import digests

RATE = 16_000
"""Samples per second that audio towers take."""
FIELDS = ("wav", "flac", "mp3", "ogg")
"""Fields of a sample that are sounds."""
SHORTEST = 400
"""Samples at `RATE`: 25 ms, the one frame without which there is no spectrum."""
RATES = (1_000, 192_000)
"""Samples per second that a file may have."""
LOUDEST = 2.0**31
"""The largest sample; files of floats are free to have others, whose squares are infinite."""
UNKNOWN = 0x7FFFF000
"""From here on, the size in the header of a WAV says that its writer did not know it."""
WORDS = {
    "File does not exist or is not a regular file (possibly a pipe?).": "it is damaged",
    "Internal error : SF_INFO struct incomplete.": "its header is damaged",
}
"""What libsndfile says of bytes as if they were files, and what is meant."""
BLOCK = 1 << 16
CLIP_SECONDS, CLIPS = 2, 3
"""What is heard of a sound: its first, its middle and its last two seconds."""


@dataclass(frozen=True)
class Sound:
    """A sound to look for.

    Attributes:
        name: what is shown for it.
        digest: of the encoded file; what tells sounds apart.
        waveform: its first channel at `RATE`, about -1..1; of a sound that `heard` gave, its clips
            alone, one behind the other.
        length: samples of the whole sound, where there are only its clips; else 0.
    """

    name: str
    digest: str
    waveform: Float32[np.ndarray, " sample"] = field(compare=False, repr=False)
    length: int = 0

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.length or len(self.waveform)) / RATE

    def clips(self) -> list[Float32[np.ndarray, " sample"]]:
        """What stands in each of the `windows` of the sound."""
        places = windows(self.length or len(self.waveform))
        if not self.length:
            return [self.waveform[begin:end] for begin, end in places]
        ends = np.cumsum([end - begin for begin, end in places])
        return np.split(self.waveform, ends[:-1])

    def heard(self) -> Sound:
        """The same sound with its clips alone: of five minutes, 0.4 MB instead of 19."""
        clips = self.clips()
        if self.length or sum(map(len, clips)) >= len(self.waveform):
            return self
        return replace(self, waveform=np.concatenate(clips), length=len(self.waveform))


def windows(length: int) -> list[tuple[int, int]]:
    """First sample of each clip, and the one behind its last; of a short sound, all three times.

    Args:
        length: samples of the sound, at `RATE`.
    """
    room = max(length / RATE - CLIP_SECONDS, 0.0)
    starts = [which * room / (CLIPS - 1) for which in range(CLIPS)]
    return [
        (int(start * RATE), min(int((start + CLIP_SECONDS) * RATE), length)) for start in starts
    ]


def read_sound(data: bytes, name: str, max_seconds: float) -> Sound:
    """Decode a sound: its first channel, at 16 kHz.

    ImageBind takes the mean over all channels off and then reads the first; as every frame of the
    spectrum loses its own mean, the first channel alone says the same.

    Args:
        data: an encoded WAV, FLAC, MP3 or Ogg file.
        name: what is shown for it.
        max_seconds: a longer one is rejected. No more of it is decoded.

    Raises:
        Reject: `bad_sound`, `empty_sound` or `long_sound`.
    """
    _check_whole(data, name)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            if not RATES[0] <= rate <= RATES[1]:
                low, high = RATES
                raise Reject("bad_sound", f"{name}: {rate} samples a second, not {low} to {high}")
            blocks, length = [], 0
            for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
                length += len(block)
                if length > max_seconds * rate:
                    raise Reject(
                        "long_sound",
                        f"{name}: more than {max_seconds:g} s, see --prompts.max_seconds",
                    )
                blocks.append(block[:, 0].copy())
    except Reject:
        raise
    except Exception as error:  # libsndfile and its decoders raise whatever they like
        # Of libsndfile's errors, the text as Python has it names an object in memory.
        said = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        why = WORDS.get(text := unwrapped(said), text) if data else "the file is empty"
        raise Reject("bad_sound", f"{name}: does not decode: {why}") from error
    waveform = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    if not np.isfinite(waveform).all():
        raise Reject("bad_sound", f"{name}: samples that are no numbers")
    if len(waveform) and (loudest := float(np.abs(waveform).max())) > LOUDEST:
        raise Reject("bad_sound", f"{name}: samples up to {loudest:.2g}, where 1 is loud")
    waveform = resample(waveform, rate, RATE)
    if len(waveform) < SHORTEST:
        least = 1000 * SHORTEST // RATE
        raise Reject("empty_sound", f"{name}: {length} samples, less than {least} ms")
    if not waveform.any():
        raise Reject("empty_sound", f"{name}: silence alone")
    return Sound(name, digests.of_bytes(data), waveform)


def _check_whole(data: bytes, name: str) -> None:
    """See that a WAV is as long as its header says: libsndfile reads it as far as it goes.

    Raises:
        Reject: `bad_sound`.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    size = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < size < UNKNOWN:
        raise Reject("bad_sound", f"{name}: cut short: {len(data):,} bytes of {size:,}")
