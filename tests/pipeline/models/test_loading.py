"""The loading that annotation, every evaluation and the demo share."""

import pytest
import torch

from pipeline.config import AnnotateConfig, PromptConfig, RunConfig
from pipeline.evaluation.config import EvaluationConfig
from pipeline.models.loaded import Query
from pipeline.models.loading import LoadedClip

TEMPLATES = ["a drawing of a {}.", "{}"]
NAMES = ["dog", "cat"]


def test_class_names_are_put_into_the_templates_of_whatever_run_it_is() -> None:
    annotating = LoadedClip(AnnotateConfig(prompts=PromptConfig(templates=TEMPLATES)))
    evaluating = LoadedClip(EvaluationConfig(templates=TEMPLATES))
    assert torch.equal(annotating.text(NAMES), evaluating.text(NAMES))
    assert not torch.allclose(LoadedClip(RunConfig()).text(NAMES), evaluating.text(NAMES))


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_an_answer_in_parts_is_the_answer(fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LoadedClip(RunConfig())
    explainer = model.explainer()
    pixels = torch.randint(0, 256, (2, 3, model.size, model.size), dtype=torch.uint8)
    text = model.text(["dog", "cat", "bus", "owl", "cup"])
    queries = [Query(pixels[0], text[:4]), Query(pixels[1], text[4:])]
    whole = model.explain(explainer, queries)
    explain = explainer.explain

    def refuse(images: torch.Tensor, text: torch.Tensor, index: torch.Tensor) -> object:
        if len(text) > fits:
            raise torch.OutOfMemoryError("too many pairs")
        return explain(images, text, index)

    monkeypatch.setattr(explainer, "explain", refuse)
    parts = model.explain(explainer, queries)
    assert [explanation.degraded for explanation in whole + parts] == [False, False, True, True]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.raw, other.raw, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(one.scores, other.scores)


def test_what_cannot_be_halved_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LoadedClip(RunConfig())
    explainer = model.explainer()

    def refuse(*_: object) -> object:
        raise torch.OutOfMemoryError("nothing fits")

    monkeypatch.setattr(explainer, "explain", refuse)
    pixels = torch.zeros(3, model.size, model.size, dtype=torch.uint8)
    with pytest.raises(torch.OutOfMemoryError):
        model.explain(explainer, [Query(pixels, model.text(NAMES))])
