"""The page of the worst and the best images, from written masks and straight from heatmaps."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import legrad
from pipeline.demo.quality import bundled_scenes
from pipeline.evaluation.points import gallery, pictures
from pipeline.evaluation.points.gallery import Picture
from pipeline.evaluation.points.pictures import keep_pictures, worst_and_best
from pipeline.models.demo import ASSETS, TEMPLATE, create, tokenize
from pipeline.models.preprocess import Preprocess
from pipeline.outputs.masks import decode, stretched

Run = Callable[..., Any]
SHARDS = ASSETS / "shards"
SHARD = SHARDS / "demo-00000.tar"
POINTS = ("--points", ASSETS / "points.csv", "--descriptions", ASSETS / "class-descriptions.csv")
SIZE = 96
SMALL = ("--model.image_size", SIZE, "--bootstrap", 0)
EACH = 2


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of fewer images than the commands', for to draw one takes long."""
    monkeypatch.setattr(pictures, "EACH", EACH)


@pytest.fixture
def drawn(few: None, monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    """What is drawn, beside drawing it."""
    noted_down: list[Picture] = []
    draw = gallery._draw

    def noted(output: str, shown: list[Picture]) -> None:
        noted_down.extend(shown)
        draw(output, shown)

    monkeypatch.setattr(gallery, "_draw", noted)
    return noted_down


def mask_of(number: int, name: str) -> np.ndarray:
    """A mask of a scene as the library makes it."""
    model = create()
    preprocess = Preprocess.of_clip(model, SIZE)
    scene = torch.from_numpy(bundled_scenes()[number].image).permute(2, 0, 1)
    pixels = preprocess.squash(scene)[None]
    images = preprocess.normalise(pixels, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        text = model.encode_text(tokenize([TEMPLATE.format(name)]), normalize=True)
    raw = legrad.build("legrad", model)(images, text, torch.tensor([0]))
    return (legrad.heatmap(raw, (SIZE, SIZE))[0] > 0.5).numpy()


def test_heatmaps_are_drawn_with_their_masks(
    rendered: None, run: Run, drawn: list[Picture], tmp_path: Path
) -> None:
    run("points", "--input", SHARD, *POINTS, *SMALL, "--limit_samples", 2 * EACH + 2)
    assert (tmp_path / "scores" / "gallery.png").stat().st_size > 1000
    assert len(drawn) == 2 * EACH
    ious = [one.iou for one in drawn]
    assert ious == sorted(ious)
    for one in (drawn[0], drawn[-1]):
        scene = bundled_scenes()[int(one.image.removeprefix("scene"))]
        assert one.pixels.shape == scene.image.shape
        assert one.masks.keys() == {points.label.id for points in one.pairs}
    label = drawn[0].pairs[0].label
    expected = mask_of(int(drawn[0].image.removeprefix("scene")), label.prompt)
    assert (
        drawn[0].masks[label.id] != expected
    ).mean() < 1e-3  # batches of another size differ in last bits


def test_the_points_on_the_drawn_masks_are_those_that_were_counted(
    run: Run, drawn: list[Picture]
) -> None:
    run("points", "--input", SHARD, *POINTS, *SMALL, "--limit_samples", 3)
    for one in drawn:
        tp = union = 0
        for points in one.pairs:
            rows = np.minimum((points.y * SIZE).astype(int), SIZE - 1)
            columns = np.minimum((points.x * SIZE).astype(int), SIZE - 1)
            inside = one.masks[points.label.id][rows, columns]
            tp += int((inside & points.yes).sum())
            union += int((inside | points.yes).sum())
        assert one.iou == tp / union


def test_the_written_mask_that_was_scored_is_drawn(
    run: Run, drawn: list[Picture], write_predictions: Run
) -> None:
    scene = bundled_scenes()[0]
    name, mask = next(iter(scene.masks.items()))
    masks = {"scene00000": {name.upper(): ~mask, name: mask}}
    scores = {("scene00000", name.upper()): 0.1, ("scene00000", name): 0.2}
    predictions = write_predictions(masks, scores=scores)
    flags = ("--predictions", predictions, "--images", SHARD, *POINTS)
    found = run("points", *flags)
    (one,) = drawn
    (label,) = (points.label for points in one.pairs if points.label.prompt == name)
    assert one.masks.keys() == {label.id}
    np.testing.assert_array_equal(one.masks[label.id], mask)
    (counts,) = (row for row in found["classes"] if row["label"] == label.id)
    assert counts["tp"] == counts["yes"] and counts["fp"] == 0


def test_an_image_that_the_settings_reject_is_not_drawn_either(
    run: Run, drawn: list[Picture], write_predictions: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    name, mask = next(iter(bundled_scenes()[0].masks.items()))
    predictions = write_predictions({"scene00000": {name: mask}})
    flags = ("--predictions", predictions, "--images", SHARD, *POINTS, "--max_pixels", 100)
    assert run("points", *flags)["images"] == {"scored": 1}
    assert "not drawn: scene00000: too_large" in capsys.readouterr().out and not drawn


def test_images_of_masks_are_found_as_their_run_found_them(
    run: Run,
    drawn: list[Picture],
    csvs: tuple[str, str],
    write_predictions: Run,
    picture: Callable[..., bytes],
    tar: Callable[..., bytes],
    write_shards: Callable[..., str],
) -> None:
    masks = {"0001": {"dog": np.ones((30, 40), dtype=bool)}}
    predictions = write_predictions(masks, image_field="png")
    images = [("0001.jpg", picture(size=(8, 8))), ("0001.png", picture(format="PNG"))]
    files = ("--points", csvs[0], "--descriptions", csvs[1])
    files += ("--images", write_shards(a=tar(images)))
    run("points", "--predictions", predictions, *files)
    assert [one.pixels.shape for one in drawn] == [(30, 40, 3)]


def test_counts_keep_few_masks_and_none_without_a_gallery(
    run: Run, few: None, tmp_path: Path
) -> None:
    flags = ("--input", SHARD, *POINTS, *SMALL, "--limit_samples", 2 * EACH + 2)
    with_masks = run("points", *flags, output="with")
    without = run("points", *flags, "--gallery", "false", output="without")
    assert with_masks["scores"] == without["scores"]
    assert not (tmp_path / "without" / "gallery.png").exists()
    for output, images in (("with", 2 * EACH), ("without", 0)):
        (path,) = (tmp_path / output / "counts").iterdir()
        rows = pq.read_table(path).to_pylist()
        assert len({row["image"] for row in rows if row["picture"]}) == images


def test_the_worst_of_all_are_among_the_worst_of_each_shard() -> None:
    rng = random.Random(0)
    for _ in range(20):
        everyone = {f"i{number}": rng.randrange(4) / 3 for number in range(60)}
        kept: dict[str, float] = {}
        for part in range(4):
            shard = dict(list(everyone.items())[part::4])
            kept |= worst_and_best(shard)
        assert worst_and_best(kept) == worst_and_best(everyone)
        assert list(worst_and_best(kept)) == list(worst_and_best(everyone))


def test_pictures_of_the_middle_are_dropped() -> None:
    mask = np.eye(3, dtype=bool)
    rows = [
        {"image": f"i{n:02d}", "tp": n, "yes": 20, "fp": 0, "picture": pictures.picture("s", mask)}
        for n in range(20)
    ]
    keep_pictures(rows)
    assert [n for n, row in enumerate(rows) if row["picture"]] == [*range(6), *range(14, 20)]
    np.testing.assert_array_equal(decode(rows[0]["picture"]["segmentation"]), mask)
    assert rows[0]["picture"]["shard"] == "s"


def test_a_stretched_mask_by_hand() -> None:
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(stretched(mask, 2, 4), mask.repeat(2, axis=1))
    np.testing.assert_array_equal(stretched(mask.repeat(3, axis=0), 2, 2), mask)


def test_a_damaged_shard_of_images_is_said(
    csvs: tuple[str, str],
    write_predictions: Run,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = tmp_path / "images.tar"
    damaged.write_bytes(SHARD.read_bytes()[:5000])
    predictions = write_predictions({"0001": {"dog": np.ones((4, 4), dtype=bool)}})
    files = ("--points", csvs[0], "--descriptions", csvs[1])
    found = run("points", "--predictions", predictions, *files, "--images", damaged)
    assert found["images"] == {"scored": 1}
    assert "not drawn: the rest of" in capsys.readouterr().out
    assert not (tmp_path / "scores" / "gallery.png").exists()


def test_images_of_heatmaps_are_those_of_the_input(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("points", "--input", SHARD, *POINTS, "--images", SHARD, code=2)
    assert "--images is for --predictions" in capsys.readouterr().err


def test_a_gallery_over_two_shards(run: Run, drawn: list[Picture], tmp_path: Path) -> None:
    run("points", "--input", SHARDS, *POINTS, *SMALL, "--limit_samples", EACH)
    shards = len(list((tmp_path / "scores" / "counts").iterdir()))
    assert shards > 1 and len(drawn) == 2 * EACH
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert metrics["data"]["images"] == shards * EACH
