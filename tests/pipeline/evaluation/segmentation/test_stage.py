"""The segmentation stage: by hand, against scikit-learn and torchmetrics, in every real format."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

import legrad
from legrad import HeatOrder
from pipeline.demo.quality import bundled_scenes
from pipeline.errors import ConfigError, Reject
from pipeline.evaluation.segmentation.mat import MatReader, mat_shards, read_wnids
from pipeline.evaluation.segmentation.precision import average_precision, two_channel_precision
from pipeline.evaluation.segmentation.scores import REGION_COUNTS, region_rows, segmentation_scores
from pipeline.evaluation.segmentation.truth import ClassMasks, CocoTruth, IndexTruth
from pipeline.inputs.reader import as_stored
from pipeline.inputs.samples import Sample
from pipeline.inputs.tars import RawSample
from pipeline.models.demo import ASSETS
from tests.pipeline.evaluation.formats import write_mat

Run = Callable[..., Any]


def table(*images: tuple[ClassMasks, np.ndarray]) -> pa.Table:
    rows = [
        row
        for number, (truth, heat) in enumerate(images)
        for row in region_rows(f"i{number}", truth, heat, heat > np.float32(0.5))
    ]
    return pa.Table.from_pylist(rows, schema=REGION_COUNTS)


def truth(*masks: list[list[int]], ignored: np.ndarray | None = None) -> ClassMasks:
    stack = np.array(masks, dtype=bool)
    nothing = np.zeros(stack.shape[1:], dtype=bool)
    return ClassMasks(
        [f"c{i}" for i in range(len(masks))], stack, nothing if ignored is None else ignored
    )


def test_data_set_micro_by_hand() -> None:
    # Image 1 is all object and all found; image 2 has 1 pixel of 4, and 2 found, 1 of them right.
    first = (truth([[1, 1]]), np.array([[[1.0, 0.9]]], dtype=np.float32))
    second = (truth([[1, 0, 0, 0]]), np.array([[[1.0, 0.9, 0.1, 0.0]]], dtype=np.float32))
    scores = segmentation_scores(table(first, second))
    assert scores["fixed"]["pixel_accuracy"] == pytest.approx(5 / 6)
    assert scores["fixed"]["miou"] == pytest.approx((3 / 4 + 2 / 3) / 2)  # not means of images
    # Mean heat of image 1 is 0.95: one pixel of two. Of image 2 it is 0.5: as before.
    assert scores["mean"]["pixel_accuracy"] == pytest.approx(4 / 6)
    assert scores["classes"] == {"background": pytest.approx(2 / 3), "c0": pytest.approx(3 / 4)}


def test_ignored_pixels_do_not_count() -> None:
    ignored = np.array([[False, False, True]])
    one = (truth([[1, 0, 0]], ignored=ignored), np.array([[[1.0, 0.0, 1.0]]], dtype=np.float32))
    scores = segmentation_scores(table(one))
    assert scores["fixed"] == {"pixel_accuracy": 1.0, "miou": 1.0}
    assert scores["two_channel_ap"] == scores["foreground_ap"] == 1.0


def test_the_hottest_class_has_the_pixel() -> None:
    two = truth([[1, 0, 0, 1]], [[0, 1, 0, 1]])  # the last pixel is of both: it does not count
    heat = np.array([[[0.9, 0.8, 0.1, 1.0]], [[0.6, 0.7, 0.6, 1.0]]], dtype=np.float32)
    # Found: c0, c0 (0.8 beats 0.7), c1; true: c0, c1, background.
    assert segmentation_scores(table((two, heat)))["classes"] == {
        "background": 0.0,
        "c0": 1 / 2,
        "c1": 0.0,
    }


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn_and_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [
        (truth((rng.random(shape) < 0.4).astype(int).tolist()), rng.random((1, *shape)).round(2))
        for shape in ((7, 9), (12, 5), (3, 3))
    ]
    images = [(t, heat.astype(np.float32)) for t, heat in images]
    scores = segmentation_scores(table(*images))
    expected = torch.cat([torch.from_numpy(t.masks[0].ravel()).long() for t, _ in images])
    found = torch.cat([torch.from_numpy((h > 0.5).ravel()).long() for _, h in images])
    iou = multiclass_jaccard_index(found, expected, 2, average="macro")
    accuracy = multiclass_accuracy(found, expected, 2, average="micro")
    assert scores["fixed"]["miou"] == pytest.approx(float(iou), abs=1e-6)  # theirs is float32
    assert scores["fixed"]["pixel_accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    both = []
    for t, heat in images:
        inside, values = t.masks[0].ravel(), heat.ravel()
        channels = np.concatenate([1 - values, values])
        both.append(average_precision_score(np.concatenate([~inside, inside]), channels))
        only = average_precision_score(inside, values)
        assert average_precision(values, inside) == pytest.approx(only, abs=1e-9)
    assert scores["two_channel_ap"] == pytest.approx(np.mean(both), abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_a_random_map_has_half_whatever_the_object(share: float) -> None:
    rng = np.random.default_rng(0)
    inside, heat = rng.random(40_000) < share, rng.random(40_000)
    assert two_channel_precision(heat, inside) == pytest.approx(0.5, abs=0.02)
    assert average_precision(heat, inside) == pytest.approx(share, abs=0.02)
    assert two_channel_precision(inside.astype(float), inside) == 1.0
    # Inverted and of two values: all true entries come last, together with all false ones.
    assert two_channel_precision(1.0 - inside, inside) == pytest.approx(0.5)
    assert two_channel_precision(np.zeros(40_000), inside) == pytest.approx(0.5)


def test_coco_regions_of_every_kind(tmp_path: Path) -> None:
    square = np.zeros((6, 8), dtype=np.uint8, order="F")
    square[1:3, 1:3] = 1
    rle = coco.encode(square)
    compressed = {"size": rle["size"], "counts": rle["counts"].decode()}
    runs = {"size": [6, 8], "counts": [0, 6, 42]}  # the first column
    polygon = [[4.0, 2.0, 8.0, 2.0, 8.0, 6.0, 4.0, 6.0]]
    regions = [(1, compressed, 0), (1, runs, 0), (2, polygon, 0), (2, compressed, 1)]
    content = {
        "images": [{"id": 5, "file_name": "a/x.jpg", "height": 6, "width": 8}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": c, "segmentation": s, "iscrowd": crowd}
            for i, (c, s, crowd) in enumerate(regions, 1)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = CocoTruth(str(tmp_path / "coco.json"))(RawSample(0, "b/x", {}))
    assert found is not None and found.names == ["dog", "cat"]
    first_column = np.zeros((6, 8), dtype=bool)
    first_column[:, 0] = True
    np.testing.assert_array_equal(found.masks[0], square.astype(bool) | first_column)
    assert found.masks[1].sum() == 16 and found.masks[1][2:, 4:].all()
    np.testing.assert_array_equal(found.ignored, square.astype(bool))
    assert found.image == "a/x" and CocoTruth(str(tmp_path / "coco.json")).of("y") is None
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ConfigError, match="not COCO ground truth"):
        CocoTruth(str(tmp_path / "other.json"))


GOOD = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]]


def coco_file(path: Path, names: list[str], annotations: list[Any]) -> str:
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 6, "width": 8} for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return str(path)


def region(image: int = 0, segmentation: Any = GOOD, **more: Any) -> dict[str, Any]:
    return {"id": 7, "image_id": image, "category_id": 1, "segmentation": segmentation, **more}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (region(segmentation=[]), "no segmentation"),
        (region(segmentation=None), "no segmentation"),
        (region(segmentation=[[1, 2, 3]]), "not a list of polygons"),
        (region(segmentation=[["a"] * 6]), "not a list of polygons"),
        (region(segmentation={"size": [6, 9], "counts": "0"}), "another size"),
        (region(segmentation={"size": [6, 8], "counts": [1, 2]}), "do not fill the image"),
        (region(segmentation={"size": [6, 8], "counts": 3}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": [50, -2]}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": "P"}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": "~~"}), "do not decode"),
        (region(segmentation={"size": [6, 8], "counts": "1"}), "do not fill the image"),
        (region(segmentation=[[1e300] * 6]), "not a list of polygons"),
        (region(image=9), "no such image_id"),
        (region(image=[0]), "no such image_id"),
        (region(category_id=5), "no such category_id"),
        ("nonsense", "no mapping"),
        (region(iscrowd="0"), "iscrowd is neither 0 nor 1"),
    ],
)
def test_a_bad_annotation_takes_no_other_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: Any, said: str
) -> None:
    truth = CocoTruth(coco_file(tmp_path / "coco.json", ["x.jpg"], [bad, region()]))
    assert [len(ids) for ids in truth.left_out.values()] == [1]
    assert "1 annotations left out: " in (out := capsys.readouterr().out) and said in out
    found = truth(RawSample(0, "x", {}))
    assert found is not None and found.masks.sum() == 16


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("a", "a"),
        ("sub/a", "sub/a"),
        ("train/sub/a", "sub/a"),
        ("./sub/a", "sub/a"),
        ("other/b", "b"),
        ("b", "b"),
        ("c", "deep/c"),
        ("w", "win/w"),
        ("none", None),
    ],
)
def test_folders_tell_images_apart(tmp_path: Path, key: str, image: str | None) -> None:
    names = ["a.jpg", "sub/a.jpg", "b.jpg", "deep/c.jpg", "win\\w.jpg"]
    everywhere = [region(image=i) for i in range(len(names))]
    truth = CocoTruth(coco_file(tmp_path / "coco.json", names, everywhere))
    found = truth(RawSample(0, key, {}))
    assert (found.image if found else None) == image


def test_what_could_be_two_images_is_neither(tmp_path: Path) -> None:
    truth = CocoTruth(coco_file(tmp_path / "coco.json", ["x/a.jpg", "y/a.jpg"], [region()]))
    with pytest.raises(Reject, match=r"could be x/a and y/a: give keys"):
        truth(RawSample(0, "a", {}))
    with pytest.raises(ConfigError, match="two images are called a"):
        CocoTruth(coco_file(tmp_path / "twice.json", ["a.jpg", "./a.png"], []))


@pytest.mark.parametrize(
    ("what", "entry", "words"),
    [
        ("categories", {"id": 1, "name": "cat"}, "two categories have the id 1: dog and cat"),
        (
            "images",
            {"id": 0, "file_name": "b.jpg", "height": 8, "width": 8},
            r"two images have the id 0: \('a', ",
        ),
    ],
)
def test_two_things_with_one_id_are_refused(
    tmp_path: Path, what: str, entry: dict[str, Any], words: str
) -> None:
    path = Path(coco_file(tmp_path / "coco.json", ["a.jpg"], [region()]))
    content = json.loads(path.read_text("utf-8-sig"))
    content["categories"][0] |= {"id": 1, "name": "dog"}
    again = content | {what: content[what] * 2}  # the same again, as where files were merged
    path.write_text(json.dumps(again))
    CocoTruth(str(path))
    path.write_text(json.dumps(content | {what: [*content[what], entry]}))
    with pytest.raises(ConfigError, match=words):
        CocoTruth(str(path))


@pytest.mark.parametrize(
    "entry",
    ["x", {"id": 3, "file_name": None, "height": 8, "width": 8},
     {"id": 3, "file_name": "b.jpg", "height": 8}, {"id": 3, "file_name": "b.jpg", "height": 8,
      "width": float("inf")}],
)  # fmt: skip
def test_an_image_that_is_none_is_named(tmp_path: Path, entry: Any) -> None:
    path = Path(coco_file(tmp_path / "coco.json", ["a.jpg"], [region()]))
    content = json.loads(path.read_text("utf-8-sig"))
    path.write_text(json.dumps(content | {"images": [*content["images"], entry]}))
    with pytest.raises(ConfigError, match=r"the image ({'id': 3|x).* has not an id, a file_name"):
        CocoTruth(str(path))


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


def test_masks_are_found_by_the_whole_key_first(tmp_path: Path) -> None:
    classes = tmp_path / "classes.yaml"
    classes.write_text("- {id: 1, name: dog}")
    for name, value in (("a", 0), ("sub/a", 1)):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(path)
    truth = IndexTruth(str(tmp_path / "masks"), "", str(classes))
    for key in ("sub/a", "train/sub/a"):
        found = truth(RawSample(0, key, {}))
        assert found is not None and found.image == "sub/a"
    assert truth(RawSample(0, "other/a", {})) is None  # only background

    (tmp_path / "masks" / "other").mkdir()
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "other" / "a.png")
    (tmp_path / "masks" / "._a.png").write_bytes(b"a Mac's notes")
    truth = IndexTruth(str(tmp_path / "masks"), "", str(classes))
    with pytest.raises(Reject, match="several_truths: a: could be other/a and sub/a"):
        truth(RawSample(0, "a", {}))


def test_index_masks(
    tmp_path: Path, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "classes.yaml").write_text("- {id: 3, name: dog}\n- {id: 4, name: cat}\n")
    png = io.BytesIO()
    Image.fromarray(np.array([[0, 3, 255], [4, 4, 9]], dtype=np.uint8)).save(png, "PNG")
    read = IndexTruth("", "seg.png", str(tmp_path / "classes.yaml"))
    found = read(RawSample(0, "k", {"seg.png": png.getvalue()}))
    assert found is not None and found.names == ["dog", "cat"]
    assert found.masks.sum((1, 2)).tolist() == [1, 2] and found.ignored.sum() == 1
    assert read(RawSample(0, "k", {})) is None
    for bad, why in (
        (png.getvalue()[:30], "bad_mask: "),
        (b"", "bad_mask: not a PNG$"),
        (picture(size=(4, 4), format="PNG"), "bad_mask: 3 axes"),
        (picture(size=(4, 4)), "bad_mask: not a PNG$"),
    ):
        with pytest.raises(Reject, match=why):
            read(RawSample(0, "k", {"seg.png": bad}))
    noted = io.BytesIO()  # by notes beside it, Pillow would refuse it
    profile = np.random.default_rng(0).bytes(100) + bytes(2 << 20)
    Image.open(png).save(noted, "PNG", icc_profile=profile)
    again = read(RawSample(0, "k", {"seg.png": noted.getvalue()}))
    assert again is not None and again.masks.sum((1, 2)).tolist() == [1, 2]
    monkeypatch.setattr("pipeline.evaluation.segmentation.truth.MOST_PIXELS", 5)
    with pytest.raises(Reject, match="bad_mask: 3x2 pixels"):
        read(RawSample(0, "k", {"seg.png": png.getvalue()}))


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
