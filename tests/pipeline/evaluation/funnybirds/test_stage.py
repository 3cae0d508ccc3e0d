"""`evaluate.py funnybirds` on files in the real layout, with a small classifier of timm."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

import legrad
from pipeline.config import ExecutionConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.evaluation import paper
from pipeline.evaluation.funnybirds.counters import ModelSubject
from pipeline.evaluation.funnybirds.dataset import Bird, Birds, Files
from pipeline.evaluation.funnybirds.stage import FunnyBirdsConfig
from pipeline.models.loading import LoadedClassifier, load
from tests.pipeline.evaluation.funnybirds.birds import SMALL as WORLD

Run = Callable[..., Any]


@pytest.fixture
def flags(birds: Path, bird_weights: str) -> tuple[object, ...]:
    return (
        *("--data", birds, "--model.name", "timm/test_vit", "--model.pretrained", bird_weights),
        *("--engine.device", "cpu"),
    )


def opened(bird_weights: str, **changes: Any) -> tuple[ModelSubject, FunnyBirdsConfig]:
    model = ModelConfig("timm/test_vit", bird_weights)
    own = {"data": "x", "model": model, "engine": ExecutionConfig(device="cpu", batch_size=2)}
    config = FunnyBirdsConfig(**own | changes)
    return ModelSubject(config, len(WORLD.classes), config.maps, config.resize), config


def test_a_run(run: Run, flags: tuple[object, ...], tmp_path: Path) -> None:
    found = run("funnybirds", *flags)
    scores = found["scores"]
    assert found["images"] == {"scored": 4} and scores["images"]["all"] == 4
    assert all(0 <= scores[name] <= 1 for name in ("accuracy", "pc", "dc", "d", "bi"))
    assert [len(curve) for name, curve in scores["curves"].items() if curve] and "data" in (
        found["settings"]
    )
    assert found["settings"]["model"]["mean"] == [0, 0, 0]
    page = (tmp_path / "scores" / "metrics.md").read_text()
    assert "| TS, target sensitivity |" in page and "4 images (4 scored) of 4 classes" in page
    assert (tmp_path / "scores" / "thresholds.png").exists()
    commits = list((tmp_path / "scores" / "commits").iterdir())
    assert len(commits) == 3  # a shard for each class with images
    assert run("funnybirds", *flags) == found  # all are committed


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long  # what the evaluations share is seen with points
def test_equal_counts_whoever_counts(
    shared_ray: str, run: Run, flags: tuple[object, ...], tmp_path: Path
) -> None:
    alone = run("funnybirds", *flags, "--engine.threads", 1, output="alone")
    engine = ("--engine.executor", "ray", "--engine.workers", 2, "--engine.threads", 1)
    assert run("funnybirds", *flags, *engine, output="many") == alone
    counts = sorted((tmp_path / "alone" / "counts").iterdir())
    assert len(counts) == 3
    for path in counts:
        assert (tmp_path / "many" / "counts" / path.name).read_bytes() == path.read_bytes()


def test_what_decides_the_counts() -> None:
    model = ModelConfig("timm/test_vit", "random")
    found = FunnyBirdsConfig(data="x", model=model).identity()
    assert found["model"]["mean"] == [0, 0, 0] and found["model"]["std"] == [1, 1, 1]
    assert (found["maps"], found["resize"], found["corrected"]) == ("auto", "nearest", False)
    assert not {"data", "input", "templates", "key_end"} & found.keys()


def test_the_data_may_move(run: Run, flags: tuple[object, ...], tmp_path: Path) -> None:
    first = run("funnybirds", *flags, "--limit_shards", 1)
    shutil.copytree(flags[1], tmp_path / "elsewhere")
    moved = run("funnybirds", "--data", tmp_path / "elsewhere", *flags[2:], "--limit_shards", 1)
    assert moved == first


def test_a_class_agnostic_method_is_not_sensitive(run: Run, flags: tuple[object, ...]) -> None:
    for method in ("rollout", "raw_attention"):
        found = run("funnybirds", *flags, "--method", method, output=method)["scores"]
        assert (
            found["ts"] in (0, None)
            and found["images"]["ts"] + found["images"].get("ts: the model is not sensitive", 0)
            == 2
        )


@pytest.mark.parametrize("method", sorted(set(legrad.METHODS) - {"text_span", "legrad_text_span"}))
def test_every_method_explains(bird_weights: str, method: str) -> None:
    try:
        subject, _ = opened(bird_weights, method=method)
    except ConfigError as error:  # the dense readings of CLIP are of CLIPs alone
        assert method in ("gem", "maskclip", "naclip", "sclip"), error
        return
    maps, degraded = subject.attributions(WORLD.at("test/0/000000.png"), [2, 0])
    assert maps.shape == (2, 64, 64) and maps.isfinite().all() and not degraded
    agnostic = method in ("rollout", "raw_attention")
    assert torch.equal(maps[0], maps[1]) == agnostic


def test_images_and_maps_are_those_of_the_authors_code(bird_weights: str) -> None:
    subject, _ = opened(bird_weights)
    image = WORLD.at("test/0/000002.png")
    reference = timm.create_model("test_vit", num_classes=4).eval().requires_grad_(False)
    reference.load_state_dict(torch.load(bird_weights, weights_only=True)["state_dict"])
    model_input = F.interpolate(image[None] / 255, (160, 160))  # nearest, and no normalisation
    with torch.no_grad():
        logits = reference(model_input)
    found, _ = subject.logits([image, image, image])
    torch.testing.assert_close(torch.from_numpy(found[2]).float(), logits[0], rtol=1e-4, atol=1e-4)
    rows = reference.head.weight[[1]]
    raw = legrad.build("legrad", reference)(model_input, rows, torch.tensor([0]))
    span = (raw - raw.min()) / (raw.max() - raw.min())
    maps = {kind: opened(bird_weights, maps=kind)[0].attributions(image, [1])[0] for kind in
            ("raw", "minmax", "heat")}  # fmt: skip
    assert torch.equal(subject.attributions(image, [1])[0], maps["minmax"])
    for kind, expected in (("raw", raw), ("minmax", span)):
        nearest = F.interpolate(expected[None], (64, 64))[0]
        torch.testing.assert_close(maps[kind], nearest, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(maps["heat"], legrad.heatmap(raw, (64, 64)), rtol=1e-3, atol=1e-4)
    rollout, _ = opened(bird_weights, method="rollout")
    raw_rollout, _ = opened(bird_weights, method="rollout", maps="raw")
    assert torch.equal(rollout.attributions(image, [1])[0], raw_rollout.attributions(image, [1])[0])


def test_our_own_preprocessing(bird_weights: str) -> None:
    image = WORLD.at("test/0/000002.png")
    nearest, config = opened(bird_weights)
    own, _ = opened(bird_weights, resize="model")
    model = load(config)
    assert isinstance(model, LoadedClassifier)
    assert torch.equal(own._fit(image), model.fit(image))
    assert not torch.equal(own._fit(image), nearest._fit(image))
    normalised = replace(config.model, mean=[0.5] * 3, std=[0.25] * 3)
    shifted = load(replace(config, model=normalised)).images(image[None])
    torch.testing.assert_close(shifted[0], (image / 255 - 0.5) / 0.25)


@pytest.fixture
def root(birds: Path, tmp_path: Path) -> Path:
    """The birds, to be broken."""
    return Path(shutil.copytree(birds, tmp_path / "broken"))


def test_what_is_broken_is_left_out_with_its_reason(
    run: Run,
    flags: tuple[object, ...],
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interventions = root / "test_interventions"
    removed = interventions / "0" / "000000" / "body_beak_eye_foot_tail.png"
    removed.unlink()
    removed.mkdir()
    (root / "test_part_map" / "0" / "000002.png").write_bytes(b"no image")
    Image.new("RGBA", (32, 32)).save(root / "test_part_map" / "1" / "000003.png")
    found = run("funnybirds", "--data", root, *flags[2:])
    assert found["rejected"] == {"missing_file": 1, "other_size": 1, "undecodable": 1}
    assert found["scores"]["images"]["all"] == 1
    said = capsys.readouterr().out
    for words in (
        "left out: test/0/000000.png: missing_file: ",
        "left out: test/0/000002.png: undecodable: ",
        "000003.png: 32x32 pixels, and the image 64x64",
    ):
        assert words in said
    shutil.rmtree(root / "test")
    run("funnybirds", "--data", root, *flags[2:], output="none", code=2)
    assert "no image could be scored (4 missing_file" in capsys.readouterr().err


def test_a_part_map_without_parts_is_none(
    run: Run,
    flags: tuple[object, ...],
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(root / "test" / "3" / "000001.png", root / "test_part_map" / "3" / "000001.png")
    found = run("funnybirds", "--data", root, *flags[2:])
    assert found["rejected"] == {"bad_part_map": 1} and found["scores"]["images"]["all"] == 3
    assert "left out: test/3/000001.png: bad_part_map: no pixel" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_ray_counts_the_same(
    shared_ray: str, run: Run, flags: tuple[object, ...], tmp_path: Path
) -> None:
    alone = run("funnybirds", *flags, output="alone")
    engine = ("--engine.executor", "ray", "--engine.workers", 2, "--engine.threads", 1)
    assert run("funnybirds", *flags, *engine, output="many") == alone
    counts = sorted((tmp_path / "alone" / "counts").iterdir())
    assert len(counts) == 3
    for path in counts:
        assert (tmp_path / "many" / "counts" / path.name).read_bytes() == path.read_bytes()


def changed(birds: Path, root: Path, name: str, content: object) -> Path:
    """The data set's lists, one of them another."""
    root.mkdir()
    for path in birds.glob("*.json"):
        shutil.copy(path, root)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / name).write_text(text)
    return root


PARTS_OK = {"beak": 0, "eye": 0, "foot": 0, "tail": 0, "wing": 0}
SAMPLE = {"class_idx": 0, "bg_objects": ""}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("classes.json", "{", "classes.json is not that of FunnyBirds: no JSON"),
        ("classes.json", {}, "it has to be a list of classes"),
        ("classes.json", [{"class_idx": 1, "parts": PARTS_OK}] * 2, "class_idx has to be 0"),
        ("classes.json", [{"class_idx": 0, "parts": {"beak": 0}}] * 2, "its parts have to be beak"),
        ("classes.json", [{"class_idx": 0, "parts": PARTS_OK | {"eye": 3}}] * 2, "eye 3 is none"),
        ("parts.json", {"beak": []}, "its keys have to be beak"),
        ("dataset_test.json", [], "it has to be a list of images"),
        ("dataset_test.json", [SAMPLE, 5], "entry 1: no mapping"),
        ("dataset_test.json", [SAMPLE | {"class_idx": 4}], "class_idx 4 is no class"),
        ("dataset_test.json", [{"class_idx": 0}], "it has no bg_objects"),
    ],
)
def test_lists_that_are_not_those_of_the_data_set(
    birds: Path, tmp_path: Path, name: str, content: object, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"^--data .* is not that of FunnyBirds: ") as raised:
        Birds.load(str(changed(birds, tmp_path / "lists", name, content)))
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--data", ""), "--data is needed"),
        (("--data", "https://x.org/FunnyBirds"), "a web server cannot list a folder"),
        (("--data", "nowhere"), "there is no classes.json in it; give the folder FunnyBirds"),
        (("--model.name", "legrad-demo", "--model.pretrained", "demo"), "give a classifier"),
        (("--model.pretrained", "random"), "4 classes in --data, but the head of timm/test_vit"),
        (("--input", "x.tar"), "--input: FunnyBirds has no use for it"),
        (("--templates", '["a {}"]'), "--templates: FunnyBirds has no use for it"),
        (("--maps", "sideways"), "--maps sideways: has to be auto or raw or minmax or heat"),
        (("--empty_text", "a photo"), "timm/test_vit takes no texts"),
    ],
)
def test_settings_that_are_refused(
    run: Run,
    flags: tuple[object, ...],
    capsys: pytest.CaptureFixture[str],
    changes: tuple[object, ...],
    words: str,
) -> None:
    try:
        run("funnybirds", *flags, *changes, code=2)
    except SystemExit as left:
        assert left.code == 2
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said


def test_the_paper_stands_beside_its_own_settings(birds: Path) -> None:
    model = ModelConfig(f"{paper.BIRD_MODEL}.orig_in21k_ft_in1k", "weights.pth.tar")
    usual = FunnyBirdsConfig(data=str(birds), model=model)
    assert usual.is_published
    for other in (
        replace(usual, maps="heat"),
        replace(usual, layers=2),
        replace(usual, corrected=True),
        replace(usual, model=replace(model, mean=[0.5] * 3)),
        replace(usual, model=replace(model, image_size=384)),
        replace(usual, model=ModelConfig("timm/test_vit", "x")),
    ):
        assert not other.is_published


def test_places_of_the_real_data_set() -> None:
    files = Files("s3://bucket/FunnyBirds")
    bird = Bird(7, 1, 2)
    assert files.image(bird) == "s3://bucket/FunnyBirds/test/1/000007.png"
    below = "s3://bucket/FunnyBirds/test_interventions/1/000007"
    assert files.without(bird, ["foot"]) == f"{below}/body_beak_eye_tail_wing.png"
    assert files.without(bird, []) == f"{below}/body_beak_eye_foot_tail_wing.png"
    assert files.without(bird, PARTS_OK) == f"{below}/body_.png"
    assert files.without_object(bird, 1) == f"{below}/background_interventions/1.png"
