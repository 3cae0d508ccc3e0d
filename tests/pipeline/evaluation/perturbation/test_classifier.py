"""A supervised classifier in the perturbation stage: its head, its input, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import legrad
from jobs import annotate
from pipeline.config import ExecutionConfig, ModelConfig, ViewsConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.evaluation import paper
from pipeline.evaluation.class_names import ClassNames
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.perturbation.stage import PerturbationConfig
from pipeline.models.classifier import load_classifier
from pipeline.models.demo import ASSETS
from pipeline.models.loaded import Query
from pipeline.models.loading import LoadedClassifier, LoadedClip, load

Run = Callable[..., Any]
CPU = torch.device("cpu")
SHARD = ASSETS / "shards" / "demo-00000.tar"
IMAGENET = ClassNames.load("", "")


def model_flags(classifier: tuple[str, str]) -> tuple[str, ...]:
    return ("--model.name", classifier[0], "--model.pretrained", classifier[1])


def opened(classifier: tuple[str, str], **changes: Any) -> LoadedClassifier:
    model = ModelConfig(*classifier, image_size=changes.pop("image_size", None))
    config = PerturbationConfig(
        input="x", model=model, engine=ExecutionConfig(device="cpu"), **changes
    )
    found = load(config)
    assert isinstance(found, LoadedClassifier)
    return found


@pytest.fixture
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 160, 160), dtype=torch.uint8, generator=generator)


def test_the_choice_is_that_of_the_model(classifier: tuple[str, str], pixels: torch.Tensor) -> None:
    model = opened(classifier)
    reference = timm.create_model("test_vit").eval()
    reference.load_state_dict(load_file(classifier[1]))
    with torch.no_grad():
        logits = reference((pixels / 255 - 0.5) / 0.5)
    head, embeddings = model.head(IMAGENET.ids, IMAGENET.names), model.embed(model.images(pixels))
    found = embeddings @ head.rows.T + head.bias
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    assert head.choose(embeddings) == logits.argmax(1).tolist()
    assert (found - head.bias).argmax(1).tolist() != logits.argmax(1).tolist()  # the bias matters


def test_classes_are_rows_in_the_order_of_their_ids(classifier: tuple[str, str]) -> None:
    model = opened(classifier)
    backwards = ClassNames(IMAGENET.names[::-1], [10 + number for number in range(999, -1, -1)])
    rows, head = (
        model.head(backwards.ids, backwards.names),
        model.head(IMAGENET.ids, IMAGENET.names),
    )
    assert torch.equal(rows.rows, head.rows.flip(0)) and torch.equal(rows.bias, head.bias.flip(0))
    with pytest.raises(ConfigError, match=r"2 classes, but the head of timm/test_vit has 1000"):
        model.head([0, 1], ["dog", "cat"])


def test_images_are_squashed_bilinearly(classifier: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 240, 3), dtype=np.uint8)
    found = opened(classifier).fit(torch.from_numpy(image).permute(2, 0, 1))
    expected = np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.BILINEAR))
    difference = found.permute(1, 2, 0).numpy().astype(int) - expected.astype(int)
    assert np.abs(difference).max() <= 1


def test_maps_are_those_of_the_rows(classifier: tuple[str, str], pixels: torch.Tensor) -> None:
    model = opened(classifier)
    bare = load_classifier(ModelConfig(*classifier), CPU, torch.float32)
    index = torch.arange(4)
    rows: torch.Tensor = bare.head.weight[:4]
    images = (pixels / 255 - 0.5) / 0.5
    expected = legrad.build("legrad", bare)(images, rows.detach(), index)
    found = model.explainer()(
        model.images(pixels), model.head(IMAGENET.ids, IMAGENET.names).rows[:4], index
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "method", [m for m, models in paper.PERTURBATION.items() if paper.SUPERVISED in models]
)
def test_every_method_of_the_table(
    classifier: tuple[str, str], pixels: torch.Tensor, method: str
) -> None:
    model = opened(classifier, method=method)
    raw = model.explainer()(
        model.images(pixels[:1]),
        model.head(IMAGENET.ids, IMAGENET.names).rows[:2],
        torch.zeros(2, dtype=torch.long),
    )
    assert raw.shape == (2, 10, 10) and raw.isfinite().all() and raw.std() > 0


def test_views_of_what_a_classifier_sees(classifier: tuple[str, str], pixels: torch.Tensor) -> None:
    model = opened(classifier, views=ViewsConfig(shifts=2, scales=[1.0, 1.5]))
    rows = model.head(IMAGENET.ids, IMAGENET.names).rows[:2]
    query = Query(model.fit(pixels[0]), rows)
    (found,) = model.explain(model.explainer(), [query])
    assert found.raw.shape == (2, 30, 30) and found.raw.isfinite().all()
    (plain,) = opened(classifier).explain(opened(classifier).explainer(), [query])
    assert torch.equal(found.scores, plain.scores)


def test_another_size_and_number_of_classes(classifier: tuple[str, str], tmp_path: Path) -> None:
    weights = load_file(classifier[1])
    weights["head.weight"], weights["head.bias"] = torch.ones(8, 64), torch.zeros(8)
    save_file(weights, tmp_path / "eight.safetensors")
    model = opened((classifier[0], str(tmp_path / "eight.safetensors")), image_size=96)
    assert model.size == 96 and model.depth == 6
    assert model.head(range(8), "abcdefgh").rows.shape == (8, 64)
    assert model.embed(model.images(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))).shape == (1, 64)


def test_the_paper_stands_beside_it() -> None:
    model = ModelConfig(paper.SUPERVISED, "timm")
    settings = EvaluationConfig(model=model).identity()
    assert paper.known_model(settings, paper.OWN_SIZE) == paper.SUPERVISED
    cam = EvaluationConfig(model=model, method="attention_cam").identity()
    assert paper.known_model(cam, paper.OWN_SIZE) is None
    published = cam | {"options": {"form": "te"}}
    assert paper.known_model(published, paper.OWN_SIZE) == paper.SUPERVISED
    assert timm.is_model(paper.SUPERVISED.removeprefix("timm/"))
    cfg = timm.get_pretrained_cfg(paper.SUPERVISED.removeprefix("timm/"))
    assert "jx_vit_base_p16_224" in cfg.url and cfg.mean == cfg.std == (0.5, 0.5, 0.5)


def test_the_paper_stands_in_the_table(
    run: Run,
    imagenet_shard: str,
    classifier: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = classifier[0]
    monkeypatch.setitem(paper.WEIGHTS, name, ModelConfig(*classifier).identity()["pretrained"])
    published = paper.PERTURBATION["legrad"][paper.SUPERVISED]
    monkeypatch.setitem(paper.PERTURBATION["legrad"], name, published)
    run("perturbation", "--input", imagenet_shard, *model_flags(classifier))
    lines = (tmp_path / "scores" / "metrics.md").read_text().splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith(("| negative", "| positive"))]
    assert [float(row[-1].rstrip(" |")) for row in cells] == [54.72, 56.43, 15.20, 14.13]


def test_a_study_of_its_layers(run: Run, imagenet_shard: str, classifier: tuple[str, str]) -> None:
    flags = ("--input", imagenet_shard, "--limit_samples", 1, *model_flags(classifier))
    found = run("layers", *flags, "--last", "[1, 6]")
    assert [row["layers"] for row in found["rows"]] == [1, 6]


def test_random_weights_are_repeatable(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    config = ModelConfig("timm/test_vit", "random")
    first, second = (load_classifier(config, CPU, torch.bfloat16) for _ in "12")
    assert "RANDOM weights" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.bfloat16 and not a.requires_grad


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        (
            "timm/vit_base_patch61_224",
            "timm",
            r"no such model .did you mean .*vit_base_patch16",
        ),
        ("timm/test_vit", "nonsense", "not a file; for timm/test_vit give timm, random, a file"),
        ("timm/test_vit.nonsense", "random", "does not load: RuntimeError: .*nonsense"),
        ("timm/vit_tiny_patch16_224", str(ASSETS / "legrad-demo.safetensors"), "no head.weight"),
        ("timm/vit_small_patch14_dinov2", "random", "no linear classifier"),
    ],
)
def test_what_does_not_load_is_said(name: str, pretrained: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_classifier(ModelConfig(name, pretrained), CPU, torch.float32)


@pytest.mark.parametrize(
    "command",
    [
        ("points", "--points", ASSETS / "points.csv", "--descriptions",
         ASSETS / "class-descriptions.csv"),
        ("segmentation", "--coco", ASSETS / "instances.json"),
        ("layers", "--study", "gradient", "--coco", ASSETS / "instances.json"),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_stages_that_look_for_texts_refuse_it(
    run: Run,
    classifier: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    command: tuple[object, ...],
) -> None:
    run(*command, "--input", SHARD, *model_flags(classifier), code=2)
    error = capsys.readouterr().err
    assert "a classifier has no text tower" in error and error.count("\n") == 1


def test_annotate_refuses_it(
    classifier: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--input", str(SHARD), "--output", str(tmp_path / "out"))
    local = ("--engine.executor", "local", "--engine.threads", "1")
    assert annotate.main([*flags, *model_flags(classifier), *local]) == 2
    error = capsys.readouterr().err
    assert "a classifier has no text tower" in error and error.count("\n") == 1


def test_settings_that_a_classifier_refuses(
    run: Run,
    imagenet_shard: str,
    classes: str,
    classifier: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--input", imagenet_shard, *model_flags(classifier))
    for extra, words in (
        (("--classes", classes), "but the head of timm/test_vit has 1000"),
        (("--empty_text", "a photo of a"), "timm/test_vit takes no texts"),
        (
            ("--method", "text_span", "--options", '{"background": ["dog"]}'),
            "--options background: timm/test_vit takes no texts",
        ),
        (("--templates", '["a drawing of a {}."]'), "timm/test_vit are rows of its head"),
    ):
        run("perturbation", *flags, *extra, code=2, output=extra[0])
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_a_clip_is_still_a_clip() -> None:
    config = PerturbationConfig(input="x", engine=ExecutionConfig(device="cpu"))
    assert isinstance(load(config), LoadedClip)
