"""The segmentation stage: whole runs, of `.mat` files and of predictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import legrad
from legrad import HeatOrder
from pipeline.demo.quality import bundled_scenes
from pipeline.errors import ConfigError
from pipeline.evaluation.segmentation.mat import MatReader, mat_shards, read_wnids
from pipeline.evaluation.segmentation.precision import two_channel_precision
from pipeline.evaluation.segmentation.truth import IndexTruth
from pipeline.inputs.reader import as_stored
from pipeline.inputs.samples import Sample
from pipeline.models.demo import ASSETS
from tests.pipeline.evaluation.formats import write_mat

Run = Callable[..., Any]


Run = Callable[..., Any]


def test_a_mask_of_another_size_than_the_truth_is_a_reject(
    write_predictions: Run, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.yaml").write_text("- {id: 1, name: dog}")
    for name, side in (("a", 4), ("b", 6)):
        image = Image.fromarray(np.ones((side, side), dtype=np.uint8))
        image.save(tmp_path / "masks" / f"{name}.png")
    square = {"dog": np.ones((4, 4), dtype=bool)}
    found = run(
        "segmentation",
        *("--predictions", write_predictions({"a": square, "b": square})),
        *("--masks", tmp_path / "masks", "--classes", tmp_path / "classes.yaml"),
    )
    assert found["rejected"] == {"other_size": 1}
    assert found["scores"]["fixed"]["pixel_accuracy"] == 1.0
    (tmp_path / "masks" / "c.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(OSError, match=r"c\.png: is a link to what is not there"):
        IndexTruth(str(tmp_path / "masks"), "", str(tmp_path / "classes.yaml"))


def test_a_mat_file_is_scored_as_its_images(run: Run, tmp_path: Path) -> None:
    write_mat(tmp_path / "gtsegs.mat", 5)
    scenes = bundled_scenes()[:5]
    names = [next(iter(scene.masks)) for scene in scenes]
    lines = [f"n{i:08d} {name}, also called so\n" for i, name in enumerate(names)]
    lines[0] = f"\ufeff{lines[0]}"
    (tmp_path / "wnids.txt").write_text("".join(lines))
    (shard,) = mat_shards(str(tmp_path / "gtsegs.mat"))
    read = MatReader(str(tmp_path / "wnids.txt"), as_stored)
    for sample, scene, name in zip(read(shard), scenes, names, strict=True):
        assert isinstance(sample, Sample)
        np.testing.assert_array_equal(sample.pixels.permute(1, 2, 0).numpy(), scene.image)
        np.testing.assert_array_equal(sample.wanted.masks[0], scene.masks[name])
        assert sample.wanted.names == [name]
    flags = ["--mat", tmp_path / "gtsegs.mat", "--wnids", tmp_path / "wnids.txt"]
    found = run("segmentation", *flags, "--model.image_size", 96)
    assert found["images"] == {"scored": 5}
    assert found["scores"]["fixed"]["pixel_accuracy"] > 0.85
    limited = run("segmentation", *flags, "--limit_samples", 2, output="limited")
    assert limited["images"] == {"scored": 2}
    (tmp_path / "wnids.txt").write_text("".join(lines[1:]))
    found = run("segmentation", *flags, "--model.image_size", 96, output="again")
    assert found["rejected"] == {"unknown_class": 1}


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file"])
def test_other_mat_files_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "old.mat").write_bytes(content)
    (tmp_path / "wnids.txt").write_text("")
    flags = ["--mat", tmp_path / "old.mat", "--wnids", tmp_path / "wnids.txt"]
    run("segmentation", *flags, code=2)
    assert "not a v7.3 .mat" in capsys.readouterr().err


def test_perfect_masks_and_written_sizes(write_predictions: Run, run: Run) -> None:
    masks = {f"scene{i:05d}": dict(s.masks) for i, s in enumerate(bundled_scenes()[:8])}
    predictions = write_predictions(masks)
    coco_json = ASSETS / "instances.json"
    found = run("segmentation", "--predictions", predictions, "--coco", coco_json)
    assert found["scores"]["fixed"] == {"pixel_accuracy": 1.0, "miou": 1.0}
    assert found["scores"]["multi_class_miou"] == 1.0
    assert "two_channel_ap" not in found["scores"]  # no heat, no ranking
    limited = ["--coco", coco_json, "--limit_samples", 3]
    found = run("segmentation", "--predictions", predictions, *limited, output="limited")
    assert found["images"] == {"scored": 3}
    small = {"scene00000": {"hamburger": np.ones((4, 4), dtype=bool)}}
    flags = ["--engine.max_attempts", 1]
    run(
        "segmentation",
        *("--predictions", write_predictions(small, name="small"), "--coco", coco_json, *flags),
        output="other",
        code=2,
    )


def test_heat_is_scored_as_it_was_made(write_predictions: Run, run: Run) -> None:
    """In the order of its method; raw maps from −1 to 1 are rebuilt where they are cut off at 0."""
    scene = bundled_scenes()[0]
    name, mask = next(iter(scene.masks.items()))
    grid = np.random.default_rng(0).integers(1, 255, (9, 9)).astype(np.uint8)
    grid[0, 0], grid[4, 4] = 0, 255
    raw = torch.from_numpy(grid.astype(np.float32) / 255)[None]
    precisions = []
    for order in HeatOrder:
        predictions = write_predictions(
            {"scene00000": {name: mask}},
            heat={("scene00000", name): grid},
            name=f"predictions-{order.value}",
            order=order,
        )
        flags = ("--predictions", predictions, "--coco", ASSETS / "instances.json")
        found = run("segmentation", *flags, output=f"scores-{order.value}")
        of_method = 2 * raw - 1 if order.clips else raw
        heat = legrad.heatmap(of_method, mask.shape, order=order)[0].numpy()
        nothing = np.zeros(mask.shape, dtype=np.float32)  # what a class without a mask has
        maps = {one: heat if one == name else nothing for one in scene.masks}
        expected = [
            two_channel_precision(maps[one].ravel(), inside.ravel())
            for one, inside in scene.masks.items()
        ]
        assert found["scores"]["two_channel_ap"] == pytest.approx(np.mean(expected), abs=1e-6)
        precisions.append(found["scores"]["two_channel_ap"])
    assert np.diff(sorted(precisions)).min() > 1e-4


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "give one of --mat, --coco"),
        (("--coco", "a", "--masks", "b"), "give one of --mat, --coco"),
        (("--coco", "a"), "give one of --predictions, --input"),
        (("--mat", "a"), "--wnids"),
        (("--masks", "a", "--input", "b"), "need --classes"),
        (("--mask_field", "a", "--predictions", "b"), "has no samples"),
        (("--coco", "a", "--predictions", "b", "--key_end", "last_dot"), "--key_end: has no eff"),
        (("--coco", "a", "--predictions", "b", "--max_pixels", "9"), "--max_pixels: has no effect"),
        (("--coco", "a", "--input", "b", "--classes", "c"), "--classes: has no effect without"),
        (("--coco", "a", "--input", "b", "--wnids", "c"), "--wnids: has no effect without --mat"),
        (("--mat", "a", "--wnids", "b", "--image_field", "png"), "has no effect beside --mat"),
    ],
)
def test_settings_that_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    run("segmentation", *flags, code=2)
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"n01440764\n", "line 1: 'n01440764'"), (b"n1 \xff", "no text in UTF-8")],
)
def test_names_of_classes_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "wnids.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_wnids(str(tmp_path / "wnids.txt"))
    assert "\n" not in str(caught.value)
