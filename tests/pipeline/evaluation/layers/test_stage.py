"""Studies of the layers: the gradient inside objects, sweeps and ablations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

import legrad
from pipeline.demo.quality import bundled_scenes
from pipeline.evaluation.layers.counters import LAYER_MEANS, gradient_distribution, spread
from pipeline.evaluation.layers.stage import VARIANTS
from pipeline.models.demo import ASSETS, TEMPLATE, create, tokenize
from pipeline.models.preprocess import Preprocess

Run = Callable[..., Any]
SHARD = ASSETS / "shards" / "demo-00000.tar"


def test_distribution_by_hand() -> None:
    rows = [
        {"image": "a", "name": "dog", "means": [1.0, 3.0, 5.0]},
        {"image": "b", "name": "dog", "means": [3.0, 5.0, 7.0]},
        {"image": "b", "name": "cat", "means": [4.0, 4.0, 4.0]},
    ]
    found = gradient_distribution(pa.Table.from_pylist(rows, schema=LAYER_MEANS))
    assert found["raw"] == [3.0, 4.0, 5.0]  # classes weigh the same, whatever their images
    assert found["layers"] == [0.0, 0.5, 1.0]
    assert found["classes"] == {"cat": [0.0, 0.0, 0.0], "dog": [0.0, 0.5, 1.0]}
    assert spread(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_gradient_is_that_of_the_library(run: Run) -> None:
    flags = ["--study", "gradient", "--input", SHARD, "--limit_samples", 1]
    found = run("layers", *flags, "--coco", ASSETS / "instances.json")
    model = create()
    preprocess = Preprocess.of_clip(model)
    per_class: dict[str, list[list[float]]] = {}
    for scene in bundled_scenes()[:1]:
        pixels = preprocess.squash(torch.from_numpy(scene.image).permute(2, 0, 1))[None]
        images = preprocess.normalise(pixels, torch.device("cpu"), torch.float32)
        for name, mask in scene.masks.items():
            with torch.no_grad():
                text = model.encode_text(tokenize([TEMPLATE.format(name)]), normalize=True)
            means = []
            for layer in range(6):
                raw = legrad.build("legrad", model, [layer])(images, text, torch.tensor([0]))
                size = scene.image.shape[:2]
                up = F.interpolate(raw[None], size, mode="bilinear", align_corners=False)[0, 0]
                means.append(float(up[torch.from_numpy(mask)].mean()))
            per_class.setdefault(name, []).append(means)
    expected = np.mean([np.mean(means, axis=0) for means in per_class.values()], axis=0)
    assert found["raw"] == pytest.approx(expected.tolist(), rel=1e-4)
    normalised = run(
        "layers", *flags, "--coco", ASSETS / "instances.json", "--per_layer_minmax", "true",
        output="minmax",
    )  # fmt: skip
    assert normalised["raw"] != found["raw"]


def test_sweep_over_points(run: Run, tmp_path: Path) -> None:
    flags = ["--points", ASSETS / "points.csv", "--descriptions", ASSETS / "class-descriptions.csv"]
    size = ["--model.image_size", 96, "--limit_samples", 2]
    found = run("layers", "--input", SHARD, *flags, *size, "--last", "[1, 6]")
    assert [row["layers"] for row in found["rows"]] == [1, 6]
    alone = run("points", "--input", SHARD, *flags, *size, "--layers", 1, output="alone")
    assert found["rows"][0]["p_miou"] == pytest.approx(100 * alone["scores"]["p-mIoU: classes"])
    assert (tmp_path / "scores" / "layers.png").exists()


def test_ablation_has_every_variant(run: Run, classes: str) -> None:
    flags = ["--study", "ablation", "--classes", classes, "--label_field", "labels"]
    found = run("layers", *flags, "--input", SHARD, "--limit_samples", 6)
    assert list(found["rows"]) == [variant.title for variant in VARIANTS]
    assert all(0 <= area <= 90 for row in found["rows"].values() for area in row.values())


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "--input is needed"),
        (("--input", "x", "--study", "gradient"), "needs --coco or --masks"),
        (("--input", "x", "--points", "y"), "needed together"),
        (("--input", "x", "--study", "gradient", "--masks", "y"), "needs --classes"),
        (("--input", "x", "--study", "ablation", "--last", "[1]"), "--last: only --study sweep"),
        (("--input", "x", "--coco", "y"), "--coco: only --study gradient"),
    ],
)
def test_settings_that_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    run("layers", *flags, code=2)
    assert words in capsys.readouterr().err
