"""The class file that a calibration writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.calibration.write import CLASSES, write_classes
from pipeline.inputs.classes import load_classes


def test_sounds_are_found_from_the_folder_that_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("in/classes.yaml").write_text(
        "- {id: 1, name: dog, sounds: [sounds/bark.ogg, /far/howl.wav, 's3://b/yap.wav']}\n"
        "- {id: 2, name: bell, prompts: [], sounds: [bell.wav]}\n"
        "- {id: 3, name: cat, prompts: [cat, kitten], threshold: 0.25}\n"
    )
    given = load_classes("in/classes.yaml")
    write_classes("out", given, {"dog": (0.5, 0.99)}, {"bell": 0.75}, "in/classes.yaml")
    dog, bell, cat = load_classes(f"out/{CLASSES}")
    here = f"{tmp_path}/in/sounds/bark.ogg", "/far/howl.wav", "s3://b/yap.wav"
    assert dog == replace(given[0], presence=0.5, sounds=here)
    assert bell == replace(given[1], threshold=0.75, sounds=(f"{tmp_path}/in/bell.wav",))
    assert cat == given[2]


def test_credentials_of_a_location_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("- {id: 1, name: dog, sounds: [bark.ogg]}\n")
    (dog,) = load_classes(str(tmp_path / "classes.yaml"))
    write_classes(str(tmp_path), [dog], {}, {}, "https://user:secret@host/in/classes.yaml")
    (written,) = load_classes(str(tmp_path / CLASSES))
    assert written.sounds == ("https://host/in/bark.ogg",)
