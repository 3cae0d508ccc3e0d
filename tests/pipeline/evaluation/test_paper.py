"""The paper's numbers stand beside those of the same settings, and of no others."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import AnnotateConfig, MaskConfig, ModelConfig, PromptConfig
from pipeline.evaluation import paper
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.points.stage import PointsConfig
from pipeline.models.loading import depth_of
from pipeline.models.method import EMPTY_TEXT

B16 = ModelConfig(paper.B16, paper.WEIGHTS[paper.B16])
SIGLIP = ModelConfig(paper.SIGLIP, paper.WEIGHTS[paper.SIGLIP])


@pytest.mark.parametrize("model", [B16, SIGLIP])
def test_the_papers_settings_are_known(model: ModelConfig) -> None:
    config = EvaluationConfig(model=model)
    assert paper.known_model(config.identity(), 224) == model.name
    points = PointsConfig(model=model, points="p", descriptions="d", input="i")
    assert paper.known_model(points.identity(), paper.POINT_SIZE) == model.name
    assert paper.known_model(points.identity(), 224) is None


def test_the_empty_text_of_siglip_is_the_papers_for_legrad_alone() -> None:
    spelled = {"model": SIGLIP, "empty_text": EMPTY_TEXT}
    assert paper.known_model(EvaluationConfig(**spelled).identity(), 224) == paper.SIGLIP
    other = EvaluationConfig(**spelled, method="gradcam").identity()
    assert paper.known_model(other, 224) is None


@pytest.mark.parametrize(
    "change",
    [
        {"model": replace(B16, pretrained="random")},
        {"model": replace(B16, image_size=448)},
        {"options": {"relu": False}},
        {"layers": 2},
        {"empty_text": "a photo of a"},
        {"empty_threshold": 0.5},
        {"templates": ["{}"]},
    ],
)
def test_other_settings_are_not(change: dict[str, Any]) -> None:
    settings = EvaluationConfig(**{"model": B16} | change).identity()
    assert paper.known_model(settings, 224) is None


def test_masks_of_a_run_have_a_rule_too() -> None:
    run = AnnotateConfig(output="o", model=replace(B16, image_size=448))
    assert paper.known_model(run.identity(), 448) == paper.B16
    for other in (
        replace(run, mask=MaskConfig(threshold=0.4)),
        replace(run, mask=MaskConfig(rule="mean")),
        replace(run, mask=MaskConfig(overlap="winner")),
        replace(run, mask=MaskConfig(refine="pamr")),
        replace(run, prompts=PromptConfig(presence=0.2)),
        replace(run, prompts=PromptConfig(templates=["{}"])),
        replace(run, model=B16),
    ):
        assert paper.known_model(other.identity(), 448) is None


def test_blocks_are_counted_without_weights() -> None:
    depths = [depth_of(ModelConfig(name, "no/such/file")) for name in (paper.B16, paper.SIGLIP)]
    assert depths == [12, 12]
    assert depth_of(ModelConfig(paper.SUPERVISED, "timm")) == 12
