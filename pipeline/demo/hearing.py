"""Does a sound find its thing as its name does? `python -m pipeline.demo.hearing`.

The bundled sounds, which training has not heard, on scenes of the bundle; as a control, each thing
is looked for by the sound of the class after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from jsonargparse import auto_cli
from torch import Tensor

from pipeline.config import ExecutionConfig, RunConfig
from pipeline.demo.map_quality import Quality, measure
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.sprites import CLASSES
from pipeline.demo.timbres import LONGEST, SOUNDS, file_name
from pipeline.inputs.sounds import Sound, read_sound
from pipeline.models.loading import LoadedClip


def compare(model: LoadedClip, scenes: int = 192) -> dict[str, Quality]:
    """How well things are found by name, by sound, and by the sound of another class.

    Args:
        model: the demo's CLIP.
        scenes: of the bundle.
    """
    names = list(CLASSES)
    after = dict(zip(names, [*names[1:], names[0]], strict=True))
    shown = bundled_scenes()[:scenes]

    def heard(wanted: Sequence[str]) -> Float32[Tensor, "name embed"]:
        return model.encode_sound([bundled(name) for name in wanted])

    def others(wanted: Sequence[str]) -> Float32[Tensor, "name embed"]:
        return heard([after[name] for name in wanted])

    ways = {"text": model.text, "sound": heard, "another's sound": others}
    return {name: measure(model, shown, embed=embed) for name, embed in ways.items()}


def bundled(name: str) -> Sound:
    """The sound of a class in the bundle."""
    return read_sound((SOUNDS / file_name(name)).read_bytes(), name, LONGEST)


def main(scenes: int = 192, threads: int = 1) -> None:
    """Print the comparison.

    Args:
        scenes: of the bundle's 192.
        threads: of the processor.
    """
    torch.set_num_threads(threads)
    model = LoadedClip(RunConfig(engine=ExecutionConfig(device="cpu")))
    for name, found in compare(model, scenes).items():
        print(f"{name:>16}: {found}")


if __name__ == "__main__":
    auto_cli(main)
