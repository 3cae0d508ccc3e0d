"""The explainer of a run: what its settings ask for, and when SigLIP's correction is on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import legrad
from jobs import annotate
from pipeline.cli import parse
from pipeline.config import AnnotateConfig, ExecutionConfig, MethodConfig, PromptConfig, ViewsConfig
from pipeline.demo import run as demo
from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.samples import Sample
from pipeline.models.demo import ASSETS, create
from pipeline.models.explain import PromptExplainer
from pipeline.models.loaded import Query
from pipeline.models.loading import LoadedClip
from pipeline.models.method import EMPTY_TEXT, make_explainer

WIDTH = 24
ENGINE = ExecutionConfig(executor="local", threads=1)


class Clip(nn.Module):
    """An image tower where `legrad` looks for one."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


def siglip() -> nn.Module:
    """No configuration is as small as this, so that the constructor cannot make it."""
    torch.manual_seed(3)
    visual = TimmModel.__new__(TimmModel)
    nn.Module.__init__(visual)
    visual.trunk, visual.head = pooling_trunk(num_classes=0), nn.Sequential()
    return Clip(visual).eval()


def pooling_trunk(num_classes: int) -> VisionTransformer:
    trunk = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=WIDTH, depth=2, num_heads=3, num_classes=num_classes,
        class_token=False, global_pool="map",
    )  # fmt: skip
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return trunk.eval()


class Embed:
    """Stands for a text tower, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> Tensor:
        self.asked.append(text)
        generator = torch.Generator().manual_seed(len(text))
        return nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)


def no_names(names: Sequence[str]) -> Tensor:
    """For settings without names."""
    raise AssertionError(names)


def maps(model: nn.Module, **settings: object) -> tuple[Tensor, list[str]]:
    """Maps of two texts in one image, and the texts that were embedded for the explainer."""
    embed = Embed()
    explainer = make_explainer(MethodConfig(**settings), model, embed, no_names, 1 << 20)
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(1, 3, 16, 16, generator=generator)
    text = nn.functional.normalize(torch.randn(2, WIDTH, generator=generator), dim=1)
    return explainer(image, text, torch.tensor([0, 0])), embed.asked


def test_siglip_is_corrected_unless_told_otherwise() -> None:
    model = siglip()
    auto, asked = maps(model)
    assert asked == [EMPTY_TEXT]
    plain, asked = maps(model, empty_text="")
    assert asked == []
    named, asked = maps(model, empty_text=EMPTY_TEXT)
    assert asked == [EMPTY_TEXT]

    assert torch.equal(auto, named)
    assert not torch.equal(auto, plain)
    changed = auto != plain
    assert auto[changed].eq(0).all()
    off, _ = maps(model, empty_threshold=1.0)
    assert torch.equal(off, plain)


@pytest.mark.parametrize(
    ("make", "method"),
    [
        pytest.param(siglip, "gradcam", id="another method"),
        pytest.param(lambda: pooling_trunk(num_classes=WIDTH), "legrad", id="a classifier"),
    ],
)
def test_nothing_else_is_corrected_unasked(make: Callable[[], nn.Module], method: str) -> None:
    model = make()
    auto, asked = maps(model, method=method)
    assert asked == []
    if method != "legrad":
        named, asked = maps(model, method=method, empty_text="nothing")
        assert asked == ["nothing"]
        assert not torch.equal(auto, named)


def test_options_reach_the_method() -> None:
    model = siglip()
    expected = legrad.build("legrad", model, 1, apply_trunk_norm=True, relu=False)
    options = {"apply_trunk_norm": True, "relu": False}
    made = make_explainer(
        MethodConfig(options=options, layers=1, empty_text=""), model, Embed(), no_names, 1 << 20
    )
    arguments = torch.ones(1, 3, 16, 16), torch.ones(1, WIDTH), torch.tensor([0])
    assert torch.equal(made(*arguments), expected(*arguments))


def test_what_does_not_fit_the_model_is_a_config_error() -> None:
    for settings, message in [
        ({"method": "lrp"}, "--method lrp: "),
        ({"options": {"pool": "cls"}}, "--method legrad: pool='cls'"),
        ({"layers": 9}, "--method legrad: layers=9"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make_explainer(MethodConfig(**settings), siglip(), Embed(), no_names, 1 << 20)


def test_without_views_nothing_is_wrapped() -> None:
    for views in (ViewsConfig(), ViewsConfig(scales=[1.0])):
        config = MethodConfig(views=views, empty_text="")
        made = make_explainer(config, siglip(), Embed(), no_names, 1 << 20)
        assert type(made) is type(legrad.build("legrad", siglip()))
        assert "views" not in config.identity()
    assert "views" in MethodConfig(views=ViewsConfig(flip=True)).identity()


def test_scales_stay_in_their_order_and_make_the_same_maps_in_any() -> None:
    configs = [
        parse(AnnotateConfig, "annotate.py", "", ["--views.scales", scales])
        for scales in ("[1, 1.25, 0.5]", "[1.25, 0.5, 1.0]")
    ]
    # What outputs of before hold; sorted, they could not be gone on with.
    assert [config.identity()["views"]["scales"] for config in configs] == [
        [1.0, 1.25, 0.5],
        [1.25, 0.5, 1.0],
    ]
    one, other = (maps(siglip(), views=config.views, empty_text="")[0] for config in configs)
    assert torch.equal(one, other)
    assert not torch.equal(one, maps(siglip(), views=ViewsConfig(), empty_text="")[0])


def test_views_are_of_the_corrected_maps() -> None:
    model = siglip()
    raw, asked = maps(model, views=ViewsConfig(shifts=2, flip=True))
    assert asked == [EMPTY_TEXT] and raw.shape == (2, 8, 8)
    assert not torch.equal(
        raw, maps(model, views=ViewsConfig(shifts=2, flip=True), empty_text="")[0]
    )


def test_views_of_maps_with_a_cell_per_pixel_are_refused_in_a_line() -> None:
    for flags in (["--views.shifts", "2"], ["--views.flip"]):
        config = parse(AnnotateConfig, "annotate.py", "", ["--method", "lrp", *flags])
        with pytest.raises(ConfigError, match=r"^--views with --method lrp: this method's maps"):
            PromptExplainer(replace(config, engine=ENGINE))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--layers", "2.0"], "--layers 2.0: a part of the blocks lies between 0 and 1"),
        (["--layers", "0.0"], "--layers 0.0: a part of the blocks lies between 0 and 1"),
        (["--views.shifts", "3"], "--views.shifts 3: give 1"),
        (["--views.scales", "[1.5]"], r"--views.scales \[1.5\]: 1 must be among them"),
        (["--views.scales", "[1.5, 1, 1.5]"], r"--views.scales \[1.5, 1.0, 1.5\]: one is listed"),
        (["--views.scales", "[1, -2]"], r"--views.scales \[1.0, -2.0\]: each must be"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse(AnnotateConfig, "annotate.py", "", flags)


def test_layers_are_a_number_or_a_part() -> None:
    for given, layers, chosen in [("4", 4, 4), ("0.67", 0.67, 4), ("0.01", 0.01, 1)]:
        config = parse(AnnotateConfig, "annotate.py", "", ["--layers", given])
        assert config.layers == layers and type(config.layers) is type(layers)
        model = create().requires_grad_(False)
        same = legrad.build("legrad", model, chosen)
        made = make_explainer(replace(config, empty_text=""), model, Embed(), no_names, 1 << 20)
        arguments = torch.ones(1, 3, 96, 96), torch.ones(1, 128), torch.tensor([0])
        assert torch.equal(made(*arguments), same(*arguments))


# --- annotation and evaluation


SETTINGS: dict[str, object] = {
    "method": "gradcam",
    "options": {"with_cls": False},
    "layers": [1],
    "empty_text": "a drawing",
    "empty_threshold": 0.6,
}


def test_annotation_and_evaluation_make_the_same_maps() -> None:
    annotating = PromptExplainer(AnnotateConfig(engine=ENGINE, **SETTINGS))
    evaluated = LoadedClip(EvaluationConfig(engine=ENGINE, **SETTINGS))
    pixels = torch.randint(0, 256, (3, 96, 96), generator=torch.Generator().manual_seed(1))
    pixels = annotating.squash(pixels.to(torch.uint8))
    sample = Sample(0, "0", 96, 96, pixels, [Prompt(0, "dog", None, ("dog",))])

    (annotated,) = annotating([sample])
    images = evaluated.images(pixels[None])
    expected = evaluated.explainer()(images, evaluated.text(["dog"]), torch.tensor([0]))
    torch.testing.assert_close(annotated.raw, expected)

    plain = legrad.build("gradcam", create().requires_grad_(False), [1], with_cls=False)
    uncorrected = plain(images, evaluated.text(["dog"]), torch.tensor([0]))
    changed = ~torch.isclose(annotated.raw, uncorrected)
    assert changed.any()
    assert annotated.raw[changed].eq(0).all()


def test_annotation_and_evaluation_make_the_same_maps_of_views() -> None:
    """Of pixels that are as large as the largest view; the score is that of the plain one."""
    views = ViewsConfig(shifts=2, scales=[1.0, 1.25])
    annotating = PromptExplainer(AnnotateConfig(engine=ENGINE, views=views))
    evaluated = LoadedClip(EvaluationConfig(engine=ENGINE, views=views))
    pixels = torch.randint(0, 256, (3, 90, 200), generator=torch.Generator().manual_seed(1))
    pixels = annotating.squash(pixels.to(torch.uint8))
    assert pixels.shape == (3, 120, 120)
    assert torch.equal(pixels, evaluated.squash(pixels))
    prompt = Prompt(0, "dog", 1, ("dog",))
    (annotated,) = annotating([Sample(0, "0", 90, 200, pixels, [prompt])])
    text = evaluated.text(["dog"])
    images = evaluated.images(pixels[None])
    plain = legrad.build("legrad", create().requires_grad_(False))
    made = legrad.Views(plain, 2, scales=[1, 1.25], size=(96, 96))
    embedding, expected = made.explain(images, text, torch.tensor([0]))
    torch.testing.assert_close(annotated.raw, expected)
    assert annotated.scores == pytest.approx([float(embedding[0] @ text[0])])

    query = Query(evaluated.fit(pixels), text)  # perturbation's are of the plain size
    (explanation,) = evaluated.explain(evaluated.explainer(), [query])
    assert explanation.raw.shape == annotated.raw.shape == (1, 30, 30)


def test_no_class_of_a_vocabulary_in_an_image_with_a_correction(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("- {id: 1, name: dog}")
    prompts = PromptConfig("vocabulary", classes=str(tmp_path / "classes.yaml"), presence=1.0)
    explain = PromptExplainer(AnnotateConfig(prompts=prompts, engine=ENGINE, empty_text="a"))
    pixels = explain.squash(torch.zeros(3, 40, 40, dtype=torch.uint8))
    (found,) = explain([Sample(0, "0", 40, 40, pixels, [])])
    assert found.prompts == []
    assert len(found.raw) == 0


# --- names for an option that takes texts


def background(value: object) -> AnnotateConfig:
    options = json.dumps({"background": value})
    return parse(AnnotateConfig, "annotate.py", "", ["--method", "text_span", "--options", options])


def test_a_background_is_given_as_names(tmp_path: Path) -> None:
    names = ["dog", "cat", "car"]
    (tmp_path / "classes.yaml").write_text(
        "".join(f"- {{id: {i}, name: {name}, prompts: [x]}}\n" for i, name in enumerate(names))
    )
    listed = background(names)
    from_file = background(str(tmp_path / "classes.yaml"))
    assert from_file.options == listed.options == {"background": names}
    assert from_file.fingerprint() == listed.fingerprint() != background(["dog"]).fingerprint()
    thousand = background("imagenet").options["background"]
    assert len(thousand) == 1000 and thousand[0] == "tench"

    explain = PromptExplainer(replace(listed, engine=ENGINE))
    pixels = explain.squash(torch.randint(0, 256, (3, 96, 96)).to(torch.uint8))
    (found,) = explain([Sample(0, "0", 96, 96, pixels, [Prompt(0, "dog", None, ("dog",))])])
    clip = LoadedClip(EvaluationConfig(engine=ENGINE))
    model = create().requires_grad_(False)
    made = legrad.build("text_span", model, background=clip.text(names))
    arguments = clip.images(pixels[None]), clip.text(["dog"]), torch.tensor([0])
    torch.testing.assert_close(found.raw, made(*arguments))
    assert not torch.allclose(found.raw, legrad.build("text_span", model)(*arguments))

    settings: dict[str, object] = {"method": "text_span", "options": listed.options}
    evaluated = LoadedClip(EvaluationConfig(engine=ENGINE, **settings))
    torch.testing.assert_close(evaluated.explainer()(*arguments), found.raw)


@pytest.mark.parametrize("value", ["imagnet", 5, [], ["dog", ""], ["dog", 5], {"a": "dog"}])
def test_what_is_no_list_of_names_is_refused_in_a_line(value: object) -> None:
    with pytest.raises(ConfigError, match=r"--options background: .* is neither imagenet, nor a "):
        background(value)


def test_a_wrong_class_file_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("- {id: 1}")
    with pytest.raises(ConfigError, match=r"^--options background /.*classes.yaml, line 1"):
        background(str(tmp_path / "classes.yaml"))


# --- what a text is contrasted with


CONTRASTED = "legrad_text_span"


def contrasted(tmp_path: Path, names: Sequence[str], **settings: object) -> AnnotateConfig:
    path = tmp_path / "classes.yaml"
    path.write_text("".join(f"- {{id: {i}, name: {name}}}\n" for i, name in enumerate(names)))
    prompts = PromptConfig(classes=str(path))
    return AnnotateConfig(method=CONTRASTED, engine=ENGINE, prompts=prompts, **settings)


def test_without_an_option_the_classes_are_the_background(tmp_path: Path) -> None:
    names = ["dog", "cat", "car"]
    explain = PromptExplainer(contrasted(tmp_path, names))
    pixels = explain.squash(torch.randint(0, 256, (3, 96, 96)).to(torch.uint8))
    sample = Sample(0, "0", 96, 96, pixels, [Prompt(0, "dog", None, ("dog",))])
    (found,) = explain([sample])
    clip = LoadedClip(EvaluationConfig(engine=ENGINE))
    model = create().requires_grad_(False)
    made = legrad.build(CONTRASTED, model, background=clip.text(names))
    arguments = clip.images(pixels[None]), clip.text(["dog"]), torch.tensor([0])
    torch.testing.assert_close(found.raw, made(*arguments))

    options: dict[str, object] = {"background": ["dog", "tree"]}
    (other,) = PromptExplainer(contrasted(tmp_path, names, options=options))([sample])
    made = legrad.build(CONTRASTED, model, background=clip.text(["dog", "tree"]))
    torch.testing.assert_close(other.raw, made(*arguments))
    assert not torch.allclose(other.raw, found.raw)


def test_the_background_is_in_the_fingerprint_by_its_names(tmp_path: Path) -> None:
    first = contrasted(tmp_path, ["dog", "cat"]).fingerprint()
    (tmp_path / "moved").mkdir()
    assert contrasted(tmp_path / "moved", ["dog", "cat"]).fingerprint() == first
    assert contrasted(tmp_path, ["dog", "car"]).fingerprint() != first


@pytest.mark.parametrize("names", [[], ["dog"]])
def test_nothing_to_contrast_with_is_a_line(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.yaml").write_text("- {id: 1, name: dog}")
    prompts = ["--prompts.classes", str(tmp_path / "one.yaml")] if names else []
    flags = ["--input", str(ASSETS / "shards"), "--output", str(tmp_path / "out")]
    flags += ["--method", CONTRASTED]
    assert annotate.main([*flags, *prompts, "--prompts.source", "labels"]) == 2
    has = "1" if names else "none"
    assert capsys.readouterr().err == (
        f"annotate.py: --method {CONTRASTED} needs the names of other classes to contrast with, "
        f"and has {has}: give --prompts.classes, or --options '{{background: classes.yaml}}'\n"
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"and has none: give --options '{background"):
        LoadedClip(EvaluationConfig(engine=ENGINE, method=CONTRASTED)).explainer()


def test_the_demo_contrasts_its_own_classes() -> None:
    config = demo.configure(AnnotateConfig(method=CONTRASTED))
    assert len(config.options["background"]) == 48
    given: dict[str, object] = {"background": ["dog", "cat"]}
    assert demo.configure(AnnotateConfig(method=CONTRASTED, options=given)).options == given
    assert demo.configure(AnnotateConfig()).options == {}
