"""Refined masks in a run: whatever the batches, the memory and the order of the work."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.annotate import main
from pipeline.config import DECODE_ENOUGH, AnnotateConfig, ExecutionConfig, MaskConfig, PromptConfig
from pipeline.inputs.images import decode, squash
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.inputs.stages import StageClock
from pipeline.inputs.tars import read_samples
from pipeline.models.demo import ASSETS
from pipeline.models.explain import PromptExplainer
from pipeline.outputs.masks import decode as pixels_of
from pipeline.outputs.masks import measure
from pipeline.outputs.refinement.guides import guide_maker
from pipeline.outputs.refinement.regions import regions
from pipeline.outputs.refinement.run_images import ImagesOfRun
from pipeline.outputs.thresholding import threshold_maps
from pipeline.run import annotator as module
from pipeline.run.annotator import Annotator
from pipeline.run.worker import Worker
from tests.pipeline.stand_ins import (
    Annotate,
    Labelled,
    MakeConfig,
    MakeTar,
    Write,
    guide_from,
    rows,
)

CONFIG = MaskConfig(refine="regions_pamr", overlap="winner", threshold=0.4, refine_size=24)
ENGINE = ExecutionConfig(executor="local", threads=1)
SIZES = [(30, 40), (40, 30), (30, 40), (64, 64)]


@pytest.fixture
def batch(picture: Callable[..., bytes], explainer: PromptExplainer) -> list[Sample]:
    """Four samples of three sizes with 2, 0, 5 and 1 prompts."""
    names = ["dog", "cat", "car", "tree", "book"]
    samples = []
    for index, ((height, width), count) in enumerate(zip(SIZES, (2, 0, 5, 1), strict=True)):
        pixels = decode(picture(index, size=(width, height)), 1 << 20)
        prompts = [Prompt(i, name, None, (name,)) for i, name in enumerate(names[:count])]
        guide = guide_from(pixels, CONFIG)
        squashed = explainer.squash(pixels)
        sample = Sample(index, f"{index}", height, width, squashed, prompts, guide=guide)
        samples.append(sample)
    return samples


@pytest.mark.parametrize("overlap", ["keep", "winner"])
def test_masks_are_those_of_the_definition(
    explainer: PromptExplainer, batch: list[Sample], overlap: Any
) -> None:
    config = replace(CONFIG, overlap=overlap)
    found = Annotator(explainer, config).annotate(batch)
    asked = [sample for sample in batch if sample.wanted]
    maps = dict(zip([s.index for s in asked], explainer(asked), strict=True))
    for sample, one in zip(batch, found, strict=True):
        if not sample.wanted:
            assert not one.annotations
            continue
        raw = maps[sample.index].raw
        (part,) = threshold_maps(
            raw, sample.height, sample.width, [None] * len(raw), config, guides=[sample.guide]
        )
        masks = [pixels_of(segmentation) for segmentation in part.encode()]
        for annotation, expected in zip(one.annotations, masks, strict=True):
            assert annotation.heat.shape == (12, 12)  # that of the map itself
            mask = annotation.mask
            pixels = pixels_of(mask.segmentation) if mask else np.zeros_like(expected)
            np.testing.assert_array_equal(pixels, expected)
        if overlap == "winner":
            assert np.sum(masks, axis=0).max() <= 1


@pytest.mark.parametrize("overlap", ["keep", "winner"])
def test_they_are_the_same_where_memory_is_short(
    explainer: PromptExplainer,
    batch: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    overlap: Any,
) -> None:
    annotator = Annotator(explainer, replace(CONFIG, overlap=overlap))
    whole = annotator.annotate(batch)
    limit = 5 if overlap == "winner" else 2

    def limited(raw: torch.Tensor, *arguments: Any) -> Any:
        if len(raw) > limit:
            raise torch.OutOfMemoryError(f"{len(raw)} maps")
        return threshold_maps(raw, *arguments)

    monkeypatch.setattr(module, "threshold_maps", limited)
    for one, expected in zip(annotator.annotate(batch), whole, strict=True):
        for ours, theirs in zip(one.annotations, expected.annotations, strict=True):
            assert (ours.mask, ours.dropped) == (theirs.mask, theirs.dropped)


def test_a_reader_makes_guides_only_where_maps_are_refined(
    tar: MakeTar, write_shards: Write, picture: Callable[..., bytes]
) -> None:
    data = picture(size=(40, 30))
    (shard,) = find_shards([write_shards(a=tar([("k.txt", b"dog"), ("k.png", data)]))])

    def read(config: MaskConfig) -> Sample:
        guide = guide_maker(config, lambda sample: bool(sample.wanted))
        (sample,) = ShardReader(lambda raw: raw.key, lambda pixels: squash(pixels, 8), guide=guide)(
            shard
        )
        assert isinstance(sample, Sample)
        return sample

    assert read(MaskConfig()).guide is None
    guided = read(CONFIG)
    assert guided.pixels.shape == (3, 8, 8)
    expected = guide_from(decode(data, 1 << 20), CONFIG)
    assert guided.guide.pixels.shape == (3, 18, 24)
    assert torch.equal(guided.guide.pixels, expected.pixels)
    assert guided.guide.regions is None and expected.regions is not None


@pytest.mark.parametrize("side", [8, 80])
def test_the_guides_of_a_run_are_made_again_whatever_its_model_takes(
    side: int, tar: MakeTar, labelled: Labelled, write_shards: Write, picture: Callable[..., bytes]
) -> None:
    data = picture(size=(403, 301))
    shards = [write_shards(a=tar(labelled("a", ["dog"], data)))]
    configs = [CONFIG, replace(CONFIG, refine_size=70), replace(CONFIG, refine="pamr")]
    row = {"key": "a", "height": 301, "width": 403}
    (shard,) = find_shards(shards)
    scaled = {"decode": "scaled"}
    runs = [({"decode": "full"}, None), (scaled, 2.0), (scaled | {"decode_enough": 4.0}, 4.0)]
    for identity, enough in runs:
        images = ImagesOfRun(shards, "", identity)
        ((first, larger, same),) = images.guides(shard.name, [row], configs)
        assert first.pixels.shape == same.pixels.shape == (3, 18, 24)
        assert larger.pixels.shape == (3, 52, 70)
        for config, again in zip(configs, (first, larger, same), strict=True):
            (sample,) = ShardReader.of(
                AnnotateConfig(),
                lambda raw: raw.key,
                lambda pixels: squash(pixels, side),
                guide_maker(config, lambda _: True, enough),
                enough,
            )(shard)
            assert isinstance(sample, Sample)
            assert torch.equal(sample.guide.pixels, again.pixels)
    whole = guide_from(decode(data, 1 << 20), CONFIG)
    assert (first.pixels.int() - whole.pixels.int()).abs().float().mean() < 1.5


@pytest.mark.parametrize("refine", ["none", "regions_pamr"])
def test_masks_are_of_the_stored_size_at_whatever_scale_images_are_decoded(
    refine: Any,
    tar: MakeTar,
    labelled: Labelled,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    members: list[tuple[str, bytes]] = []
    with next(iter(sorted((ASSETS / "shards").iterdir()))).open("rb") as stream:
        for scene in islice(read_samples(stream), 3):
            larger = io.BytesIO()
            Image.open(io.BytesIO(scene.fields["jpg"])).resize((803, 601)).save(larger, "JPEG")
            labels = json.loads(scene.fields["json"])["labels"]
            members += labelled(scene.key, labels, larger.getvalue())
    mask = MaskConfig(refine=refine, refine_size=64)
    config = make_config(input=write_shards(a=tar(members)), mask=mask)
    small = replace(config, decode="scaled", output=config.output + "-scaled")
    how = {"decode": "scaled", "decode_enough": DECODE_ENOUGH}
    assert small.identity() == config.identity() | how
    found, whole = (rows(annotate(each, Worker), "annotations") for each in (small, config))
    ious = []
    for one, other in zip(found, whole, strict=True):
        assert (one["height"], one["width"]) == (601, 803)
        assert one["segmentation"]["size"] == [601, 803]
        area, box = measure(one["segmentation"])
        assert (one["area"], one["bbox"]) == (area, box)
        assert one["score"] == pytest.approx(other["score"], abs=0.02)
        pair = [pixels_of(row["segmentation"]) for row in (one, other)]
        ious.append((pair[0] & pair[1]).sum() / (pair[0] | pair[1]).sum())
    assert len(ious) > 3 and np.mean(ious) > 0.9
    assert {row["heat"] for row in found} != {row["heat"] for row in whole}


@pytest.mark.parametrize("source", ["labels", "vocabulary"])
def test_an_image_has_a_guide_where_there_is_something_to_look_for(
    source: Any,
    tar: MakeTar,
    labelled: Labelled,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    members = labelled("a", ["dog"]) + labelled("b", []) + labelled("c", ["cat"])
    folder = write_shards(a=tar(members))
    classes = str(ASSETS / "classes.yaml")
    prompts = PromptConfig(source=source, classes=classes if source == "vocabulary" else "")
    config = make_config(input=folder, mask=CONFIG, prompts=prompts)
    worker = Worker(config)
    guided = [sample.guide is not None for sample in worker.read(*find_shards([folder]))]
    assert guided == [True, source == "vocabulary", True]
    assert annotate(config, lambda _: worker).committed(), "nor is one missed"


def test_regions_are_made_only_of_images_in_which_something_is(
    explainer: PromptExplainer, batch: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent prompts leave guides as they are; the annotator makes what a guide lacks."""
    made: list[torch.Size] = []

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        made.append(pixels.shape)
        return regions(pixels)

    monkeypatch.setattr("pipeline.outputs.refinement.guides.regions", counted)
    expected = Annotator(explainer, CONFIG).annotate(batch)
    assert made == []
    small = [replace(s, guide=s.guide and replace(s.guide, regions=None)) for s in batch]
    found = Annotator(explainer, CONFIG).annotate(small)
    asked = [sample for sample in batch if sample.wanted]
    assert sorted(made) == sorted(sample.guide.pixels.shape for sample in asked)
    for one, other in zip(found, expected, strict=True):
        assert [a.mask for a in one.annotations] == [a.mask for a in other.annotations]

    made.clear()
    filtering = AnnotateConfig(engine=ENGINE, prompts=PromptConfig(presence=1.0))
    nothing = Annotator(PromptExplainer(filtering), CONFIG).annotate(small)
    assert made == [] and not any(one.annotations for one in nothing)
    assert sum(len(one.absent) for one in nothing) == 8


def test_regions_are_made_in_the_time_of_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AnnotateConfig(engine=ENGINE, mask=CONFIG, limit_samples=1)
    worker, clock = Worker(config), StageClock()
    reading = StageClock()
    (sample,) = worker.read(find_shards([str(ASSETS / "shards")])[0], reading)
    assert isinstance(sample, Sample) and sample.guide is not None
    assert sample.guide.regions is None
    spent = []

    def busy(pixels: torch.Tensor) -> torch.Tensor:
        started = time.thread_time()
        while time.thread_time() < started + 0.05:
            pass
        spent.append(time.thread_time() - started)
        return regions(pixels)

    monkeypatch.setattr("pipeline.outputs.refinement.guides.regions", busy)
    worker.annotator.annotate([sample], clock=clock)
    assert len(spent) == 1
    assert clock.seconds["mask"] >= spent[0] and clock.processor["mask"] >= spent[0]


def test_runs_write_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for in_flight in ("1", "2"):
        output = tmp_path / in_flight
        flags = ["--engine.executor", "local", "--engine.threads", "1"]
        flags += ["--engine.shards_in_flight", in_flight, "--engine.batch_size", "2"]
        flags += ["--limit_shards", "2", "--limit_samples", "3", "--mask.refine", "regions_pamr"]
        flags += ["--input", str(ASSETS / "shards"), "--mask.overlap", "winner"]
        assert main([*flags, "--output", str(output)]) == 0
        files = sorted(output.glob("annotations/*")) + sorted(output.glob("images/*"))
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert len(made[0]) == 2
