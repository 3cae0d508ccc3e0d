"""The demo's sounds find their things, and the files that say so."""

from pipeline.demo.hearing import bundled, compare
from pipeline.demo.sprites import CLASSES
from pipeline.demo.timbres import CLASS_FILE, HELD_OUT_SEED, SOUNDS, TRAIN_SEED, make_sound
from pipeline.inputs.classes import load_classes
from pipeline.models.demo import ASSETS, AUDIO_WEIGHTS
from pipeline.models.explain import PromptExplainer


def test_sounds_find_things_as_names_do(explainer: PromptExplainer) -> None:
    """On a few scenes; `python -m pipeline.demo.hearing` takes all."""
    found = compare(explainer._model, 24)
    text, sound, other = (found[way].p_miou for way in ("text", "sound", "another's sound"))
    assert sound >= 0.8 * text
    assert other < 0.5 * sound


def test_the_class_file_names_every_sound() -> None:
    classes = load_classes(str(ASSETS / CLASS_FILE))
    assert [category.name for category in classes] == list(CLASSES)
    assert all(not c.prompts and (ASSETS / c.sounds[0]).is_file() for c in classes)


def test_files_are_small() -> None:
    assert AUDIO_WEIGHTS.stat().st_size < 1 << 20
    assert sum(path.stat().st_size for path in SOUNDS.iterdir()) < 1 << 20


def test_no_sound_is_one_of_training() -> None:
    name = "soccer ball"
    first, again = (make_sound(name, HELD_OUT_SEED, 0) for _ in range(2))
    assert (first == again).all()
    assert len(first) != len(make_sound(name, TRAIN_SEED, 0))
    assert abs(bundled(name).seconds - len(first) / 16_000) < 0.01
