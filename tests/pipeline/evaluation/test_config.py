"""Settings of evaluations: where they are, what is written of them, and what decides the counts."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import evaluate
from pipeline.config import ModelConfig
from pipeline.demo.quality import bundled_scenes
from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.layers.stage import LayersConfig
from pipeline.evaluation.perturbation.stage import PerturbationConfig
from pipeline.evaluation.points.stage import PointsConfig
from pipeline.evaluation.segmentation.stage import SegmentationConfig
from pipeline.models.demo import ASSETS
from pipeline.outputs.rethreshold import RethresholdConfig
from tests.pipeline.evaluation.formats import index_mask

Run = Callable[..., Any]
SHARD = ASSETS / "shards" / "demo-00000.tar"
TRUTHS = (
    (SegmentationConfig, {"mat": "t", "wnids": "w"}),
    (SegmentationConfig, {"predictions": "p", "coco": "t"}),
    (SegmentationConfig, {"input": "i", "masks": "t", "classes": "c"}),
    (PointsConfig, {"predictions": "p", "points": "t", "descriptions": "d", "images": ["i", "j"]}),
    (PerturbationConfig, {"input": ["i", "j"], "input_root": "r", "classes": "c"}),
    (LayersConfig, {"input": "i", "points": "t", "descriptions": "d"}),
    (LayersConfig, {"input": "i", "study": "gradient", "masks": "t", "classes": "c"}),
    (LayersConfig, {"input": "i", "study": "gradient", "coco": "t"}),
)


def secret(name: str) -> str:
    return f"s3://key:hush@bucket/{name}?endpoint_override=hush"


@pytest.mark.parametrize(("kind", "settings"), TRUTHS)
def test_no_credentials_are_written(kind: type[EvaluationConfig], settings: dict[str, Any]) -> None:
    hidden = {
        name: [secret(v) for v in value] if isinstance(value, list) else secret(value)
        for name, value in settings.items()
        if name != "study"
    }
    model = ModelConfig("ViT-B-16", secret("weights.pt"))
    config = kind(output=secret("o"), model=model, **settings | hidden)
    described = json.dumps(config.public())
    assert "hush" not in described
    assert described.count("s3://bucket/") == 2 + sum(
        len(value) if isinstance(value, list) else 1 for value in hidden.values()
    )


def test_no_credentials_are_written_of_rethresholding() -> None:
    config = RethresholdConfig(secret("s"), secret("o"), secret("c"))
    assert "hush" not in json.dumps(config.public())
    assert config.public()["source"] == "s3://bucket/s"


@pytest.mark.parametrize(("kind", "settings"), TRUTHS)
def test_what_workers_read_is_absolute(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[EvaluationConfig],
    settings: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").touch()
    model = ModelConfig("ViT-B-16", "weights.pt")
    if "predictions" in settings:
        with pytest.raises(ConfigError, match="--model: has no effect beside --predictions"):
            kind(output="o", model=model, **settings).absolute()
        model = ModelConfig()
    config = kind(output="o", model=model, **settings).absolute()
    if "predictions" not in settings:
        assert config.model.pretrained == str(tmp_path / "weights.pt")
    for name in ("predictions", "mat", "wnids", "coco", "masks", "output"):
        value = getattr(config, name, "")
        assert value == "" or os.path.isabs(value), name
    with pytest.raises(ConfigError, match="--output is needed"):
        kind(**settings).absolute()


def test_a_relative_output_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, csvs: tuple[str, str], write_predictions: Run
) -> None:
    predictions = write_predictions({"0001": {"dog": np.ones((4, 4), dtype=bool)}})
    monkeypatch.chdir(tmp_path)
    flags = ("--points", csvs[0], "--descriptions", csvs[1], "--engine.executor", "local")
    output = ("--output", "here", "--predictions", Path(predictions).name)
    assert evaluate.main(["points", *flags, *output]) == 0
    settings = json.loads(Path("here/run.json").read_text())["config"]
    assert (settings["output"], settings["predictions"]) == (str(tmp_path / "here"), predictions)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class-index masks of a few scenes of the demo."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, scene in enumerate(bundled_scenes()[:2]):
        Image.fromarray(index_mask(scene)).save(folder / f"scene{number:05d}.png")
    return folder


def test_the_same_truth_in_another_place_is_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--input", SHARD, "--limit_samples", 2, "--model.image_size", 96)
    first = run("segmentation", *flags, "--coco", ASSETS / "instances.json")
    shutil.copy(ASSETS / "instances.json", tmp_path / "moved.json")
    monkeypatch.chdir(tmp_path)
    assert run("segmentation", *flags, "--coco", "moved.json") == first
    assert str(ASSETS) not in json.dumps(first)


@pytest.mark.parametrize("command", ["segmentation", "layers"])
def test_other_masks_in_the_same_folder_are_others(
    run: Run, folder: Path, classes: str, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    study = ("--study", "gradient") if command == "layers" else ("--model.image_size", 96)
    flags = ("--input", SHARD, "--limit_samples", 2, *study, "--classes", classes)
    first = run(command, *flags, "--masks", folder)
    assert run(command, *flags, "--masks", f"{folder}/../{folder.name}") == first
    assert str(folder) not in json.dumps(first)
    os.utime(folder / "scene00000.png", ns=(0, 0))
    run(command, *flags, "--masks", folder, code=2)
    assert "another configuration (masks:" in capsys.readouterr().err
    run(command, *flags, "--masks", folder.parent / "nowhere", code=2, output="other")
    assert "nowhere" in capsys.readouterr().err
