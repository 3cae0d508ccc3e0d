"""What the demo's things sound like: `python -m pipeline.demo.timbres` writes a sound for each.

Every class has a timbre, made of sines.

A sound is a pure function of (class, seed, number): pitch, loudness, length, attack, phases and
noise differ from one to the next, and the timbre stays. Training and held-out sounds differ in
their seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32
from jsonargparse import auto_cli

from pipeline.demo.sprites import CLASSES
from pipeline.inputs.sounds import RATE
from pipeline.models.demo import ASSETS

TIMBRE_SEED, TRAIN_SEED, HELD_OUT_SEED = 10, 11, 12
PARTIALS = 8
PITCHES = (120.0, 700.0)
"""Hz, of the lowest partial of any timbre."""
SECONDS = (0.5, 1.5)
LONGEST = 2.0
"""Seconds: more than any sound has."""
SOUNDS = ASSETS / "sounds"
CLASS_FILE = "heard.yaml"
"""Beside the sounds: every class, by its sound alone."""
DETUNED = 0.015
"""How far the pitch of a sound may be from that of its timbre, as a part of it."""


def make_sound(name: str, seed: int, number: int) -> Float32[np.ndarray, " sample"]:
    """A sound of a class at 16 kHz, within -1..1.

    Args:
        name: of the class.
        seed: of a stream of sounds.
        number: in the stream.
    """
    place = list(CLASSES).index(name)
    timbre = np.random.default_rng((TIMBRE_SEED, place))
    low, high = np.log(PITCHES)
    pitch = np.exp(timbre.uniform(low, high))
    stretch = timbre.uniform(0.8, 1.6)  # 1 is harmonic
    strengths = timbre.dirichlet(np.full(PARTIALS, 0.5))
    tremolo = timbre.uniform(0, 12)
    rng = np.random.default_rng((seed, place, number))
    time = np.arange(int(RATE * rng.uniform(*SECONDS))) / RATE
    pitch *= 1 + rng.uniform(-DETUNED, DETUNED)
    hertz = pitch * np.arange(1, PARTIALS + 1) ** stretch
    waves = np.sin(2 * np.pi * hertz[:, None] * time + rng.uniform(0, 2 * np.pi, (PARTIALS, 1)))
    heard = np.where(hertz < 0.45 * RATE, np.sqrt(strengths), 0.0)
    tone = heard @ waves * (1 + 0.5 * np.sin(2 * np.pi * tremolo * time))
    tone *= np.minimum(1, time / rng.uniform(0.01, 0.1)) * np.exp(-time * rng.uniform(0, 2))
    tone += rng.uniform(0.001, 0.02) * rng.standard_normal(len(time))
    loudest: np.ndarray = tone / np.abs(tone).max() * rng.uniform(0.2, 0.9)
    return loudest.astype(np.float32)


def file_name(name: str) -> str:
    """The sound of a class, below `SOUNDS`."""
    return f"{name.replace(' ', '_')}.ogg"


def write(output: Path = ASSETS) -> None:
    """Write a held-out sound of every class, and a class file that names them.

    Args:
        output: directory for `sounds/` and `heard.yaml`.
    """
    (output / SOUNDS.name).mkdir(parents=True, exist_ok=True)
    entries = []
    for number, name in enumerate(CLASSES, 1):
        file = f"{SOUNDS.name}/{file_name(name)}"
        soundfile.write(output / file, make_sound(name, HELD_OUT_SEED, 0), RATE, format="OGG")
        entries.append(f"- {{id: {number}, name: {name}, prompts: [], sounds: [{file}]}}\n")
    (output / CLASS_FILE).write_text("".join(entries))


if __name__ == "__main__":
    auto_cli(write)
