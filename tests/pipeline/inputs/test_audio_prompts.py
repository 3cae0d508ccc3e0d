"""Sounds as prompts: of samples, and of the classes of a class file."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config import AnnotateConfig, ModelConfig, PromptConfig
from pipeline.errors import ConfigError, Reject
from pipeline.inputs.prompts import PromptReader, Prompts


def ogg(hertz: float, seconds: float = 0.5, format: str = "OGG") -> bytes:
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=format)
    return file.getvalue()


def read(fields: dict[str, bytes], **settings: object) -> Prompts:
    return PromptReader(PromptConfig(source="audio", **settings))(fields)


def names(content: object) -> bytes:
    return json.dumps(content).encode()


def test_every_file_is_a_prompt_with_the_name_of_its_field() -> None:
    files = {"dog.ogg": ogg(300), "jpg": b"", "cat.WAV".lower(): ogg(500, format="WAV")}
    dog, cat = read(files)
    assert (dog.category, dog.index, dog.texts, dog.wordings) == ("dog", 0, (), ("dog",))
    assert (cat.category, cat.index) == ("cat", 1)
    assert dog.sounds[0].digest != cat.sounds[0].digest
    assert abs(dog.sounds[0].seconds - 0.5) < 0.01


def test_names_are_those_of_the_json() -> None:
    files = {"ogg": ogg(300), "wav": ogg(500, format="WAV")}
    found = read(files | {"json": names({"labels": ["dog", "cat"], "x": ["a", " "]})})
    assert [prompt.category for prompt in found] == ["dog", "cat"]
    found = read(files | {"json": names({"x": ["a", " "]})}, field="x")
    assert [prompt.category for prompt in found] == ["a"]
    assert found.blank == 1
    assert [prompt.category for prompt in read(files | {"json": names({"y": 1})})] == ["ogg", "wav"]


@pytest.mark.parametrize(
    ("fields", "settings", "reason"),
    [
        ({"jpg": b""}, {}, "missing_field"),
        ({"ogg": b"no"}, {}, "bad_sound"),
        ({"ogg": ogg(300, 0.01)}, {}, "empty_sound"),
        ({"ogg": ogg(300, 0.5)}, {"max_seconds": 0.4}, "long_sound"),
        ({"ogg": ogg(300), "json": names({"labels": ["a", "b"]})}, {}, "bad_prompts"),
        ({"ogg": ogg(300), "json": b"{"}, {}, "bad_prompts"),
        ({"ogg": ogg(300), "json": names({})}, {"field": "x"}, "missing_field"),
        ({"a.ogg": ogg(300), "b.ogg": ogg(400)}, {"max_per_image": 1}, "too_many_prompts"),
    ],
    ids=["none", "bad", "empty", "long", "names", "json", "field", "many"],
)
def test_what_cannot_be_used_says_why(
    fields: dict[str, bytes], settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(Reject) as rejected:
        read(fields, **settings)
    assert rejected.value.reason == reason


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "bark.ogg").write_bytes(ogg(300))
    path = tmp_path / "classes.yaml"
    path.write_text(
        "- {id: 1, name: dog, prompts: [dog, puppy], sounds: [sounds/bark.ogg]}\n"
        "- {id: 2, name: cat}\n"
        f"- {{id: 3, name: bell, prompts: [], sounds: [{tmp_path}/sounds/bark.ogg]}}\n"
    )
    return path


def test_classes_may_be_heard_beside_their_names_or_alone(classes: Path) -> None:
    reader = PromptReader(PromptConfig(classes=str(classes)))
    dog, cat, bell = reader({"json": names({"labels": ["dog", "cat", "bell"]})})
    assert dog.wordings == ("dog", "puppy", "sounds/bark.ogg")
    assert cat.wordings == ("cat",)
    assert (bell.texts, bell.sounds[0].digest) == ((), dog.sounds[0].digest)


def test_a_class_file_with_sounds_is_known_by_what_they_hold(classes: Path) -> None:
    config = PromptConfig(classes=str(classes))
    before = config.identity()
    assert config.hears and len(before["sounds"]) == 2
    (classes.parent / "sounds" / "bark.ogg").write_bytes(ogg(400))
    assert config.identity() != before
    classes.write_text("- {id: 1, name: dog}")
    assert not config.hears and "sounds" not in config.identity()
    assert "max_seconds" not in config.identity()


def test_a_sound_of_a_class_that_cannot_be_used_is_an_error(classes: Path) -> None:
    (classes.parent / "sounds" / "bark.ogg").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"class dog: sounds/bark.ogg: does not decode"):
        PromptReader(PromptConfig(classes=str(classes)))
    (classes.parent / "sounds" / "bark.ogg").unlink()
    for there in (False, True):  # a folder
        with pytest.raises(ConfigError, match=r"class dog: its sound sounds/bark.ogg cannot be"):
            PromptReader(PromptConfig(classes=str(classes)))
        if not there:
            (classes.parent / "sounds" / "bark.ogg").mkdir()


def test_sounds_need_a_model_that_hears() -> None:
    prompts = PromptConfig(source="audio")
    with pytest.raises(ConfigError, match="ViT-B-32 has no audio tower"):
        AnnotateConfig(prompts=prompts, model=ModelConfig("ViT-B-32", "random"))
    AnnotateConfig(prompts=prompts, model=ModelConfig("imagebind_small", "random"))


def test_seconds_are_above_none() -> None:
    with pytest.raises(ConfigError, match=r"max_seconds 0\.0: must be above 0"):
        PromptConfig(max_seconds=0.0)
