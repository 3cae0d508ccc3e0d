"""Batches become masks, whatever memory there is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import AnnotateConfig, MaskConfig, PromptConfig
from pipeline.inputs.images import decode
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.samples import Sample
from pipeline.models.explain import Maps, PromptExplainer
from pipeline.outputs.annotations import Annotated
from pipeline.outputs.masks import decode as pixels_of
from pipeline.outputs.thresholding import threshold_maps
from pipeline.run import annotator as module
from pipeline.run.annotator import Annotator
from tests.pipeline.conftest import ENGINE


class Limited:
    """The real explainer on a device that has memory for so many pairs only."""

    def __init__(self, explainer: PromptExplainer, pairs: int) -> None:
        self.explainer, self.pairs = explainer, pairs
        self.device, self.embed_width = explainer.device, explainer.embed_width
        self.heat_order = explainer.heat_order
        self.squash, self.has_prompts = explainer.squash, explainer.has_prompts
        self.batches: list[int] = []

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        count = sum(len(sample.wanted) for sample in samples)
        if count > self.pairs:
            raise torch.OutOfMemoryError(f"{count} pairs")
        self.batches.append(count)
        return self.explainer(samples)


def with_maps(explainer: PromptExplainer, maps: list[Maps]) -> Limited:
    """The explainer with maps that were made before."""
    limited = Limited(explainer, 1000)
    limited.explainer = lambda samples: maps
    return limited


@pytest.fixture
def batch(picture: Callable[..., bytes], explainer: PromptExplainer) -> list[Sample]:
    """Four samples with 2, 0, 5 and 1 prompts."""
    names = ["dog", "cat", "car", "tree", "book"]
    samples = []
    for index, count in enumerate((2, 0, 5, 1)):
        pixels = explainer.squash(decode(picture(index), 1 << 20))
        prompts = [Prompt(i, name, None, (name,)) for i, name in enumerate(names[:count])]
        samples.append(Sample(index, f"{index}", 30, 40, pixels, prompts))
    return samples


def test_annotations_are_in_the_order_of_samples_and_prompts(
    explainer: PromptExplainer, batch: list[Sample]
) -> None:
    found = Annotator(explainer, MaskConfig()).annotate(batch)
    assert [[a.prompt for a in one.annotations] for one in found] == [s.wanted for s in batch]
    for annotation in (a for one in found for a in one.annotations):
        assert (annotation.mask is None) == (annotation.dropped is not None)
        assert annotation.heat.shape == (12, 12)
        assert (annotation.heat.min(), annotation.heat.max()) == (0, 255)
        assert annotation.raw_max > 0
        assert annotation.text == f"a photo of a {annotation.prompt.category}."
    assert not any(one.degraded for one in found)


def test_images_of_several_sizes_get_the_masks_that_each_gets_alone(
    explainer: PromptExplainer, batch: list[Sample]
) -> None:
    sizes = [(30, 40), (40, 30), (30, 40), (64, 64)]
    resized = [replace(s, height=h, width=w) for s, (h, w) in zip(batch, sizes, strict=True)]
    maps = explainer([sample for sample in resized if sample.wanted])
    annotator = Annotator(with_maps(explainer, maps), MaskConfig())
    together = annotator.annotate(resized)
    for sample, found in zip(resized, together, strict=True):
        mine = [m for m in maps if m.prompts == sample.wanted]
        (alone,) = Annotator(with_maps(explainer, mine), MaskConfig()).annotate([sample])
        for ours, own in zip(found.annotations, alone.annotations, strict=True):
            assert (ours.prompt, ours.mask, ours.dropped) == (own.prompt, own.mask, own.dropped)
            assert ours.mask is None or ours.mask.segmentation["size"] == [
                *(sample.height, sample.width),
            ]


def test_an_empty_batch_asks_nothing_of_the_model(explainer: PromptExplainer) -> None:
    limited = Limited(explainer, 0)
    assert Annotator(limited, MaskConfig()).annotate([]) == []
    assert limited.batches == []


def test_samples_without_prompts_cost_nothing(
    explainer: PromptExplainer, batch: list[Sample]
) -> None:
    limited = Limited(explainer, 0)
    assert Annotator(limited, MaskConfig()).annotate([batch[1]]) == [Annotated([])]
    assert limited.batches == []


@pytest.mark.parametrize(
    ("pairs", "batches"),
    [
        (8, [8]),
        (7, [2, 6]),  # of the samples that ask for anything, the first, and the other two
        (5, [2, 5, 1]),
        (3, [2, 2, 3, 1]),
        (1, [1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_a_batch_is_halved_until_it_fits(
    explainer: PromptExplainer, batch: list[Sample], pairs: int, batches: list[int]
) -> None:
    whole = Annotator(explainer, MaskConfig()).annotate(batch)
    limited = Limited(explainer, pairs)
    found = Annotator(limited, MaskConfig()).annotate(batch)
    assert limited.batches == batches
    for one, expected in zip(found, whole, strict=True):
        assert [a.prompt for a in one.annotations] == [a.prompt for a in expected.annotations]
        assert [a.text for a in one.annotations] == [a.text for a in expected.annotations]
        assert one.degraded == (pairs < 8 and bool(one.annotations))
        for ours, theirs in zip(one.annotations, expected.annotations, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert ours.raw_max == pytest.approx(theirs.raw_max, rel=1e-3)
            assert (ours.mask is None) == (theirs.mask is None)


def test_one_pair_that_does_not_fit_is_an_error(
    explainer: PromptExplainer, batch: list[Sample]
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Annotator(Limited(explainer, 0), MaskConfig()).annotate(batch)


def test_a_dropped_mask_says_why(explainer: PromptExplainer, batch: list[Sample]) -> None:
    found = Annotator(explainer, MaskConfig(min_area=1e6)).annotate(batch)
    dropped = {a.dropped for one in found for a in one.annotations}
    assert dropped == {"min_area"}
    assert all(a.mask is None for one in found for a in one.annotations)


def owners(found: Annotated) -> np.ndarray:
    """How many masks have each pixel of an image."""
    masks = [annotation.mask for annotation in found.annotations]
    return np.sum([pixels_of(mask.segmentation) for mask in masks if mask], axis=0)


@pytest.mark.parametrize("pairs", [8, 3, 1])
def test_prompts_compete_also_where_they_were_explained_in_parts(
    explainer: PromptExplainer, batch: list[Sample], pairs: int
) -> None:
    (kept,) = Annotator(explainer, MaskConfig()).annotate([batch[2]])
    assert owners(kept).max() > 1
    limited = Limited(explainer, pairs)
    found = Annotator(limited, MaskConfig(overlap="winner")).annotate(batch)
    assert [one.degraded for one in found] == [pairs < 8, False, pairs < 8, pairs < 8]
    for one in (found[0], found[2], found[3]):
        assert owners(one).max() == 1
    np.testing.assert_array_equal(owners(found[2]) > 0, owners(kept) > 0)


@pytest.mark.parametrize(
    ("overlap", "limit", "parts"),
    [
        ("keep", 8, [8]),
        ("keep", 7, [8, 2, 6]),
        ("keep", 3, [8, 2, 6, 5, 2, 3, 1]),
        ("winner", 7, [8, 2, 6]),
        ("winner", 5, [8, 2, 6, 5, 1]),
    ],
)
def test_masks_are_made_in_halves_where_memory_is_short(
    explainer: PromptExplainer,
    batch: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    overlap: Any,
    limit: int,
    parts: list[int],
) -> None:
    annotator = Annotator(Limited(explainer, 8), MaskConfig(overlap=overlap))
    whole = annotator.annotate(batch)
    tried: list[int] = []

    def limited(raw: torch.Tensor, *arguments: Any) -> Any:
        tried.append(len(raw))
        if len(raw) > limit:
            raise torch.OutOfMemoryError(f"{len(raw)} maps")
        return threshold_maps(raw, *arguments)

    monkeypatch.setattr(module, "threshold_maps", limited)
    found = annotator.annotate(batch)
    assert tried == parts
    for one, expected in zip(found, whole, strict=True):
        assert one.degraded == (limit < 8 and bool(one.annotations))
        for ours, theirs in zip(one.annotations, expected.annotations, strict=True):
            assert (ours.prompt, ours.text, ours.score) == (
                *(theirs.prompt, theirs.text),
                theirs.score,
            )
            assert (ours.mask, ours.dropped) == (theirs.mask, theirs.dropped)


def test_an_image_whose_prompts_compete_is_never_split(
    explainer: PromptExplainer, batch: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(raw: torch.Tensor, *_: Any) -> Any:
        raise torch.OutOfMemoryError(f"{len(raw)} maps")

    monkeypatch.setattr(module, "threshold_maps", short)
    with pytest.raises(torch.OutOfMemoryError, match="5 maps"):
        Annotator(explainer, MaskConfig(overlap="winner")).annotate([batch[2]])


@pytest.mark.parametrize("pairs", [1, 2, 1000])
def test_what_is_absent_is_told_once_whatever_memory_there_is(
    batch: list[Sample], pairs: int
) -> None:
    prompts = PromptConfig(presence=1.0)
    filtering = PromptExplainer(AnnotateConfig(engine=ENGINE, prompts=prompts))
    levels = [1.0, -1.0]  # every other prompt is absent
    asked = [
        replace(s, wanted=[replace(p, presence=levels[p.index % 2]) for p in s.wanted])
        for s in batch
    ]
    for sample, one in zip(
        asked, Annotator(Limited(filtering, pairs), MaskConfig()).annotate(asked), strict=True
    ):
        assert [a.prompt for a in one.annotations] == sample.wanted[1::2]
        assert [each.prompt for each in one.absent] == sample.wanted[::2]
    nothing = Annotator(filtering, MaskConfig()).annotate(batch)  # at the run's level
    assert [one.annotations for one in nothing] == [[]] * 4
    assert [[each.prompt for each in one.absent] for one in nothing] == [s.wanted for s in batch]


@pytest.mark.parametrize("overlap", ["keep", "winner"])
def test_halves_of_masks_leave_what_is_absent(
    batch: list[Sample], monkeypatch: pytest.MonkeyPatch, overlap: Any
) -> None:
    filtering = PromptExplainer(AnnotateConfig(engine=ENGINE, prompts=PromptConfig(presence=1.0)))
    asked = [
        replace(s, wanted=[replace(p, presence=[1.0, -1.0][p.index % 2]) for p in s.wanted])
        for s in batch
    ]

    def limited(raw: torch.Tensor, *arguments: Any) -> Any:
        if len(raw) > (1 if overlap == "keep" else 2):
            raise torch.OutOfMemoryError(f"{len(raw)} maps")
        return threshold_maps(raw, *arguments)

    monkeypatch.setattr(module, "threshold_maps", limited)
    found = Annotator(Limited(filtering, 2), MaskConfig(overlap=overlap)).annotate(asked)
    assert [[a.prompt for a in one.annotations] for one in found] == [s.wanted[1::2] for s in asked]
    assert [[each.prompt for each in one.absent] for one in found] == [s.wanted[::2] for s in asked]
