"""`figures.py`: the demo's maps by layer and by method, and what cannot be drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import legrad
from jobs import figures
from pipeline.config import ModelConfig
from pipeline.config.weights import LICENCE
from pipeline.demo.quality import bundled_scenes
from pipeline.errors import ConfigError
from pipeline.figures.config import PAPERS, LayersConfig, MethodsConfig
from pipeline.figures.maps import ALL, Row, rows_of, spread
from pipeline.models.demo import TEMPLATE, create, tokenize
from pipeline.models.preprocess import Preprocess
from pipeline.outputs.preview import CAPTION, CELL, MARGIN

Flags = tuple[str, ...]


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A file with a scene of the demo, and two classes in it."""
    found = next(scene for scene in bundled_scenes() if len(scene.masks) > 1)
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(found.image).save(path)
    first, second, *_ = found.masks
    return str(path), first, second


@pytest.fixture
def config(scene: tuple[str, str, str], tmp_path: Path) -> Callable[..., LayersConfig]:
    """`config(kind, **changes)`: two prompts in one image."""

    def make(kind: type = LayersConfig, **changes: object) -> LayersConfig:
        own = {"images": scene[0], "prompts": [*scene[1:]], "output": str(tmp_path / "a.png")}
        return kind(**own | {"device": "cpu"} | changes)

    return make


def test_maps_are_those_of_the_library(
    scene: tuple[str, str, str], config: Callable[..., LayersConfig]
) -> None:
    rows = rows_of(config(most=2))
    assert [(row.prompt, list(row.heats)) for row in rows] == [
        (name, ["layer 1", "layer 6", ALL]) for name in scene[1:]
    ]
    model = create()
    preprocess = Preprocess.of_clip(model)
    image = torch.from_numpy(np.array(Image.open(scene[0]))).permute(2, 0, 1)
    pixels = preprocess.squash(image)[None]
    images = preprocess.normalise(pixels, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        text = model.encode_text(tokenize([TEMPLATE.format(scene[2])]), normalize=True)
    size = rows[1].pixels.shape[:2]
    assert size[1] == CELL
    for title, layers in (("layer 1", [0]), ("layer 6", [5]), (ALL, None)):
        raw = legrad.build("legrad", model, layers)(images, text, torch.tensor([0]))
        expected = legrad.heatmap(raw, size)[0].numpy()
        assert np.allclose(rows[1].heats[title], expected, atol=1e-4)


def test_by_image_and_then_by_model(config: Callable[..., LayersConfig]) -> None:
    models = [ModelConfig(), ModelConfig(pretrained="random")]
    made = config(MethodsConfig, models=models, methods=["rollout", "legrad"])
    rows = rows_of(made)
    assert [row.prompt for row in rows] == [p for _, p in made.pairs for _ in models]
    assert [row.model for row in rows] == ["legrad-demo, demo", "legrad-demo, random"] * 2
    assert all(list(row.heats) == ["rollout", "legrad"] for row in rows)
    first, second, other = (rows[i].heats for i in (0, 1, 2))
    assert not np.allclose(first["legrad"], second["legrad"])  # another model
    assert np.array_equal(first["rollout"], other["rollout"])  # whatever is looked for
    assert not np.allclose(first["legrad"], other["legrad"])


@pytest.mark.parametrize("command", ["layers", "methods"])
def test_the_command(
    command: str, scene: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "maps.png"
    flags = ["--images", scene[0], "--prompts", scene[1], "--output", str(output)]
    flags += ["--models", "[{name: legrad-demo, pretrained: demo}]"]
    flags += ["--most", "2"] if command == "layers" else ["--methods", "[gradcam, legrad]"]
    assert figures.main([command, *flags]) == 0
    picture = Image.open(output)
    cells = 4 if command == "layers" else 3
    assert picture.width == cells * (CELL + MARGIN) + MARGIN
    assert picture.height == 2 * MARGIN + CELL + 2 * CAPTION  # scenes are squares
    assert f"{output} ({picture.width} x {picture.height} pixels)" in capsys.readouterr().out
    assert len(np.unique(np.array(picture).reshape(-1, 3), axis=0)) > 1000


def test_the_licence_of_weights_is_said_once(
    config: Callable[..., LayersConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(figures, "draw", lambda _: Image.new("RGB", (2, 2)))
    theirs = ModelConfig("imagebind_huge", "x.pth")
    figures.run(config(models=[theirs, theirs, ModelConfig("ViT-B-16", "random")]))
    assert capsys.readouterr().out.count(LICENCE) == 1
    figures.run(config(models=[ModelConfig("imagebind_small", "random")]))
    assert LICENCE not in capsys.readouterr().out


def test_a_method_without_a_form_for_the_model_is_left_blank(
    config: Callable[..., LayersConfig],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = legrad.build

    def refuse(method: str, *args: object, **options: object) -> legrad.Explainer:
        if method == "gradcam":
            raise ValueError("this tower has no such thing")
        return build(method, *args, **options)

    monkeypatch.setattr(legrad, "build", refuse)
    (row, _) = rows_of(config(MethodsConfig, methods=["legrad", "gradcam"]))
    assert row.heats["gradcam"] is None and row.heats["legrad"] is not None
    assert "not drawn: legrad-demo: --method gradcam: this tower" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--method gradcam: this tower has no such thing"):
        rows_of(config(MethodsConfig, methods=["gradcam"]))


def test_blocks_are_spread_evenly() -> None:
    assert spread(12, 12) == spread(12, 40) == list(range(12))
    assert spread(24, 4) == [0, 8, 15, 23] and spread(6, 1) == [5]
    assert all(len(spread(48, most)) == most for most in range(1, 49))


def test_the_papers_methods_can_be_drawn(config: Callable[..., LayersConfig]) -> None:
    (row, _) = rows_of(config(MethodsConfig))
    assert list(row.heats) == list(PAPERS) and isinstance(row, Row)
    assert all(
        heat is not None and 0 <= heat.min() <= heat.max() <= 1 for heat in row.heats.values()
    )


def test_images_and_prompts_belong_together(config: Callable[..., LayersConfig]) -> None:
    made = config(prompts="dog")
    assert replace(made, images=["a", "b"]).pairs == [("a", "dog"), ("b", "dog")]
    assert replace(made, images=["a", "b"], prompts=["c", "d"]).pairs == [("a", "c"), ("b", "d")]
    with pytest.raises(ConfigError, match="--images has 2 files and --prompts 3 texts"):
        replace(made, images=["a", "b"], prompts=["c", "d", "e"])


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        ("layers", ("--images", ""), "--images and --prompts are needed"),
        ("layers", ("--images", '[""]'), "--images: '' says nothing; leave it out"),
        ("layers", ("--prompts", " "), "--prompts: ' ' says nothing; leave it out"),
        ("layers", ("--prompts", '["cat", ""]'), "--prompts: '' says nothing; leave it out"),
        (
            "layers",
            ("--prompts", str(["dog"] * 121)),
            "--images, --prompts and --models make 121 rows",
        ),
        ("layers", ("--images", "nowhere.png"), "--images nowhere.png: not usable ("),
        ("layers", ("--images", __file__), "undecodable: not one of JPEG"),
        ("layers", ("--max_pixels", "10"), "too_large: "),
        ("layers", ("--output", "maps.jpg"), "--output maps.jpg: has to be the name of a .png"),
        ("layers", ("--output", "out/.png"), "--output out/.png: has to be the name of a .png"),
        ("layers", ("--output", "{image}/a.png"), "not usable ("),
        ("layers", ("--most", "0"), "--most 0: must be at least 1"),
        ("layers", ("--method", "legrd"), "unknown method 'legrd' (did you mean legrad"),
        ("layers", ("--options", "{relo: 1}"), "legrad has no option 'relo'"),
        ("layers", ("--templates", "[a]"), "every template needs one {} for the name"),
        ("methods", ("--methods", "[legrd]"), "--methods legrd: known: legrad, "),
        ("methods", ("--methods", "[legrad, legrad]"), "--methods: legrad is there twice"),
        ("methods", ("--options", "{lrp: {}}"), "lrp has to be one of --methods"),
        ("methods", ("--models", "[{name: ViT-B-61, pretrained: random}]"), "has no such model"),
        ("methods", ("--models", "[{name: timm/test_vit, pretrained: random}]"), "no text tower"),
    ],
)
def test_what_is_wrong_is_one_line(
    command: str,
    changes: Flags,
    words: str,
    scene: tuple[str, str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--images", scene[0], "--prompts", scene[1], "--output", str(tmp_path / "a.png")]
    flags += ["--device", "cpu", *(word.replace("{image}", scene[0]) for word in changes)]
    flags += ["--methods", "[legrad]"] if command == "methods" and "--methods" not in flags else []
    assert figures.main([command, *flags]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"figures.py {command}: ") and words in said and "\n" not in said


def test_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main(["--help"]) == 0 and figures.main(["views"]) == 2
    assert "Commands: layers, methods; each has --help." in capsys.readouterr().out
