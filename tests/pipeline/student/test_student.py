"""Students: small, equal for equal seeds, scored as everybody does, trained in one order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from jobs import train_student
from pipeline.demo.sprites import CLASSES
from pipeline.student import scenes as drawing
from pipeline.student import study as module
from pipeline.student.network import Student
from pipeline.student.study import RULES, StudentConfig, chosen, markdown, study
from pipeline.student.training import CLASSES as COUNT
from pipeline.student.training import confuse, endless, mean_iou, score

COMMAND = (
    *("--scenes", "16", "--choose", "2", "--held_out", "2", "--steps", "2", "--threads", "1"),
    *("--seeds", "[0]", "--rules", "[default,band-0.4-0.5]", "--presets", "[fine]"),
)


@pytest.fixture(autouse=True)
def sprites(monkeypatch: pytest.MonkeyPatch) -> dict[str, Image.Image]:
    """Stand-ins for the emoji, whose font need not be installed: a colour for every class."""
    drawn = {
        name: Image.new("RGBA", (40, 30 + number), (5 * number, 250 - 5 * number, 99, 255))
        for number, name in enumerate(CLASSES)
    }
    monkeypatch.setattr(module, "load_sprites", lambda font: drawn)
    return drawn


def test_the_network_is_small_and_gives_every_pixel_a_class() -> None:
    student = Student(COUNT)
    assert COUNT == 49
    assert 300_000 <= sum(weights.numel() for weights in student.parameters()) <= 350_000
    images = torch.rand(2, 3, 96, 96)
    logits, labels = student.eval()(images), student.segment(images)
    assert logits.shape == (2, 49, 48, 48) and labels.shape == (2, 96, 96)
    whole = torch.nn.functional.interpolate(logits, scale_factor=2.0, mode="bilinear")
    assert torch.equal(whole.argmax(1).to(torch.uint8), labels)


def test_scores_are_mean_iou(sprites: dict[str, Image.Image]) -> None:
    draw = np.random.default_rng(0)
    truth, found = (draw.integers(0, 6, 500).astype(np.uint8) for _ in range(2))
    found[found == 4] = 0
    expected = jaccard_score(truth, found, average="macro")
    assert mean_iou(confuse(truth, found)) == pytest.approx(expected)
    scenes = drawing.labelled(drawing.draw(sprites, 1, 70))
    hits = score(Student(COUNT).eval(), scenes)
    assert 0 <= hits < 0.1, "an untrained one knows nothing"


def test_scenes_for_training_choosing_and_scoring_are_disjoint(
    sprites: dict[str, Image.Image],
) -> None:
    seeds = (drawing.TRAIN_SEED, drawing.CHOOSE_SEED, drawing.SCORE_SEED)
    drawn = [scene.image.tobytes() for seed in seeds for scene in drawing.draw(sprites, seed, 20)]
    assert len(set(drawn)) == 60


def test_the_command_trains_on_both_and_writes_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_student.main([*COMMAND, "--output", str(tmp_path / "a")]) == 0
    table = (tmp_path / "a" / "metrics.md").read_text()
    assert table in capsys.readouterr().out
    assert [line.split(" | ")[0].strip("| ").split()[0] for line in table.splitlines()[2:]] == [
        "true", "default", "band-0.4-0.5", "fine",
    ]  # fmt: skip
    scores = json.loads((tmp_path / "a" / "metrics.json").read_text())["scores"]
    assert train_student.main([*COMMAND, "--output", str(tmp_path / "b")]) == 0
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["scores"] == scores


def test_both_students_see_the_same_scenes_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sprites: dict[str, Image.Image]
) -> None:
    seen: dict[int, Any] = {}

    def note(dataset: Any, steps: int, seed: int, say: Any) -> Student:
        batches = endless(dataset)
        seen[len(seen)] = [next(batches) for _ in range(4)]
        return Student(COUNT).eval()

    monkeypatch.setattr(module, "train", note)
    study(StudentConfig(str(tmp_path), 40, 4, 4, 1, [0], ["default"], [], threads=1))
    truths = {
        scene.image.tobytes(): drawing.label(scene)
        for scene in drawing.draw(sprites, drawing.TRAIN_SEED, 40)
    }
    areas = sorted(np.bincount(labels.ravel(), minlength=49).tolist() for labels in truths.values())
    for (images, true), (others, pseudo) in zip(seen[0], seen[1], strict=True):
        assert torch.equal(images, others) and not torch.equal(true, pseudo)
        assert all(np.bincount(m.ravel(), minlength=49).tolist() in areas for m in true.numpy())
    assert not torch.equal(seen[0][0][0], seen[0][2][0]), "the second epoch has another order"


def test_the_rule_is_chosen_on_scenes_that_score_nothing() -> None:
    scores = {
        "true": {"choose": [0.9], "held_out": [0.8]},
        "one": {"choose": [0.5], "held_out": [0.4]},
        "two": {"choose": [0.4], "held_out": [0.6]},
    }
    assert chosen(scores) == "one"
    lines = markdown(scores, [3]).splitlines()
    assert lines[0] == "| labels | seed 3 | mean | over true | to choose by |"
    assert lines[3] == "| one (chosen) | 0.400 | 0.400 | 0.500 | 0.500 |"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", "0"), "--steps 0: must be at least 1"),
        (("--scenes", "5"), "--scenes 5: must be at least 16"),
        (("--rules", "[bands]"), "--rules: there is no 'bands'"),
        (("--seeds", "[]"), "at least one of each"),
    ],
)
def test_settings_that_cannot_work_are_one_line(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_student.main(flags) == 2
    assert message in capsys.readouterr().err


def test_the_short_form_has_the_default_rule_and_the_long_one_all() -> None:
    short = StudentConfig(output="here", short=True).shortened()
    assert (short.output, short.rules, len(short.seeds)) == ("here", ["default"], 1)
    assert StudentConfig().shortened() == StudentConfig()
    assert StudentConfig().rules == list(RULES) and len(StudentConfig().seeds) >= 3
