"""The demo's sounds find their things, and the files that say so."""

import re
import shlex
from pathlib import Path

import pytest

from jobs import annotate
from pipeline.demo.heard import HEARD_SHARD, write
from pipeline.demo.hearing import bundled, compare
from pipeline.demo.sprites import CLASSES
from pipeline.demo.timbres import CLASS_FILE, HELD_OUT_SEED, SOUNDS, TRAIN_SEED, make_sound
from pipeline.evaluation.points.counters import count_predictions
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.points.scores import PairCounts
from pipeline.inputs.classes import load_classes
from pipeline.models.demo import ASSETS, AUDIO_WEIGHTS
from pipeline.models.explain import PromptExplainer

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"


def test_sounds_find_things_as_names_do(explainer: PromptExplainer) -> None:
    """On a few scenes; `python -m pipeline.demo.hearing` takes all."""
    found = compare(explainer._model, 24)
    text, sound, other = (found[way].p_miou for way in ("text", "sound", "another's sound"))
    assert sound >= 0.8 * text
    assert other < 0.5 * sound


def test_sounds_that_are_members_of_samples(tmp_path: Path) -> None:
    """The command of docs/evaluation.md, and the same one by names."""
    (command,) = re.findall(r"^python (jobs/annotate.py .*demo-heard.*)$", PAGE.read_text(), re.M)
    points = (ASSETS / file for file in ("points.csv", "class-descriptions.csv"))
    pairs, _ = read_labels(*map(str, points))
    words = shlex.split(command)[1:]
    found = {}
    for source in ("audio", "labels"):
        words[words.index("--prompts.source") + 1] = source
        words[words.index("--output") + 1] = output = str(tmp_path / source)
        assert annotate.main([*words, "--engine.executor", "local"]) == 0
        found[source] = PairCounts.of(count_predictions(output, pairs))
    assert found["audio"].p_miou() == pytest.approx(0.661, abs=0.01)
    assert found["labels"].p_miou() == pytest.approx(0.730, abs=0.01)
    assert found["audio"].p_miou() >= 0.8 * found["labels"].p_miou()


def test_the_shard_is_that_of_its_script(tmp_path: Path) -> None:
    write(tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == HEARD_SHARD.read_bytes()
    assert HEARD_SHARD.stat().st_size < 1 << 20


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
