"""Simulated maps of photographs, and what refinement is compared with."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnnotateConfig
from pipeline.config.presets import expand
from pipeline.demo import photographs as module
from pipeline.demo.bundle import write_tar
from pipeline.demo.photographs import GRID, Photographs, SimulatedMaps, compare, simulated
from pipeline.errors import ConfigError
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards

NAMES = {0: "unlabeled", 3: "car", 5: "kite", 7: "sky"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photographs, 60 × 80, each with a car, a kite too small, and a sky too large."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "categories.json").write_text(json.dumps(NAMES))
    members = []
    for number in range(5):
        index = np.full((60, 80), 7, dtype=np.uint8)
        index[10:40, 5 + number : 45] = 3
        index[50:55, 60:65] = 5
        index[:2] = 200  # has no name
        pixels = np.random.default_rng(number).integers(0, 90, (60, 80, 3), dtype=np.uint8)
        pixels[index == 3] += 120
        Image.fromarray(index).save(tmp_path / "masks" / f"{number:03d}.png")
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "PNG")
        members.append((f"{number:03d}.png", stored.getvalue()))
    write_tar(tmp_path / "a.tar", members)
    return tmp_path


def test_classes_that_are_neither_small_nor_everything_are_looked_for(folder: Path) -> None:
    photographs = Photographs(str(folder))
    maps = SimulatedMaps(photographs)
    (shard,) = find_shards([str(folder)])
    samples = list(ShardReader(photographs.prompts_of, maps.squash)(shard))
    assert all(isinstance(sample, Sample) for sample in samples)
    assert [[p.category for p in sample.wanted] for sample in samples] == [["car"]] * 5
    assert photographs.truths["001"].masks["car"].sum() == 30 * 39
    made = maps(samples[:2])
    assert [of_sample.raw.shape for of_sample in made] == [(1, GRID, GRID)] * 2
    (again,) = maps(samples[1:2])
    assert (again.raw == made[1].raw).all()
    assert (made[0].raw != made[1].raw).any()


def test_without_noise_a_map_is_the_blurred_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """One patch in the middle: [1 2 1; 2 6 2; 1 2 1] / 18 around it."""
    monkeypatch.setattr(module, "NOISE", 0.0)
    monkeypatch.setattr(module, "FLOOR", 0.0)
    mask = np.zeros((28, 56), dtype=bool)
    mask[12:14, 24:28] = True  # cell (6, 6) of 14 × 14
    made = simulated(mask, "a")
    expected = np.array([[1, 2, 1], [2, 6, 2], [1, 2, 1]]) / 18
    np.testing.assert_allclose(made[5:8, 5:8], expected, atol=1e-6)
    assert made.sum() == pytest.approx(1)


def test_noise_has_the_size_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.3 · (0.7 · own + 0.7 · smooth): neighbours share part of it; the floor lies in 0..0.1."""
    full, empty = np.ones((28, 28), dtype=bool), np.zeros((28, 28), dtype=bool)
    floors = np.stack([simulated(empty, str(i)) for i in range(100)])
    assert 0 <= floors.min() < 0.001
    assert 0.099 < floors.max() <= 0.1
    monkeypatch.setattr(module, "FLOOR", 0.0)
    logs = np.log(np.stack([simulated(full, str(i)) for i in range(400)])) / 0.3
    assert np.sqrt((logs**2).mean()) == pytest.approx(0.7 * np.sqrt(2), abs=0.1)
    together = (logs[:, :, 1:] * logs[:, :, :-1]).mean() / (logs**2).mean()
    assert 0.3 < together < 0.55  # of white noise 0, of noise averaged over 5 × 5 about 0.8


def test_settings_are_compared_with_plain_maps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TUNED", 2)
    plain = compare(AnnotateConfig(), str(folder), [0.3, 0.5])
    assert (plain["images"], plain["objects"]) == (3, 3)
    assert plain["recipe"]["threshold"] == 0.5
    assert plain["plain"]["threshold"] in (0.3, 0.5)
    assert plain["tuned"]["gain"] == plain["tuned"]["error"] == 0
    gain = plain["recipe"]["mask_miou"] - plain["plain"]["mask_miou"]
    assert plain["recipe"]["gain"] == pytest.approx(gain)
    fine = compare(expand("fine", AnnotateConfig), str(folder), [0.3, 0.4, 0.5])
    assert fine["tuned"]["gain"] > 0.02  # a bright car on a dark ground


def test_a_folder_of_another_kind_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--photographs .*: .*categories\.json"):
        Photographs(str(tmp_path))
    (tmp_path / "categories.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"categories\.json: not ids and names"):
        Photographs(str(tmp_path))
