"""A small data set with the files of ADE20K Sound Prompted and Speech Prompted."""

import csv
import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.pipeline.conftest import picture

CLASSES = (17, 517, 3000)
Row = dict[str, object]


def tone(hertz: float, seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    samples = 0.4 * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)
    soundfile.write(file, samples, 16_000, format="WAV")
    return file.getvalue()


def label(*numbers: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A `_seg.png` with a column for each class, and one without any."""
    width, height = size
    colours = np.zeros((height, width, 3), np.uint8)
    step = width // (len(numbers) + 1)
    for place, number in enumerate(numbers, 1):
        colours[:, place * step : (place + 1) * step] = (number // 256 * 10 + 3, number % 256, 9)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return file.getvalue()


def write_ade(root: Path, rows: list[Row] | None = None) -> str:
    """Four images with two or three classes each; returns the root."""
    for folder in ("frames/street", "annotations/street", "audio"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    usual: list[Row] = []
    for number in range(4):
        there = CLASSES if number % 2 else CLASSES[:2]
        (root / "frames" / "street" / f"{number}.jpg").write_bytes(picture(number))
        (root / "annotations" / "street" / f"{number}_seg.png").write_bytes(label(*there))
        usual += [
            {
                "image_location": f"street/{number}.jpg",
                "ade_class_id": each,
                "word": "thing",
                "vggsound_file": f"somewhere/else/{each}.wav",
                "speech_prompt_file": f"{each}.wav" if number else "",
                "timing": "[0.1, 0.6]" if number else "",
            }
            for each in there
        ]
    for each in CLASSES:
        (root / "audio" / f"{each}.wav").write_bytes(tone(200 + each % 700))
    usual.append({**usual[0], "ade_class_id": 0})
    with (root / "prompted_segmentation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(usual[0]))
        writer.writeheader()
        writer.writerows(usual if rows is None else rows)
    return str(root)
