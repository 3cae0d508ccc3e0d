"""The worker alone, and errors that are nobody's fault but the code's or the machine's."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from pycocotools import mask as coco

from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import Shard, find_shards
from pipeline.models.explain import Maps, PromptExplainer
from pipeline.run.queue import WORKER_DIED, Outcome, Trial
from pipeline.run.worker import MakeWorker, Worker
from tests.pipeline.stand_ins import (
    Annotate,
    Labelled,
    MakeConfig,
    MakeTar,
    Write,
    rows,
)


def test_images_are_reported_and_errors_are_outcomes(
    good: bytes, write_shards: Write, make_config: MakeConfig, make_worker: MakeWorker,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = make_config(input=write_shards(a=good))
    (shard,) = find_shards(config.patterns)
    worker, done = make_worker(config), []
    assert worker.try_shard(Trial(shard), done.append) == Outcome()
    assert done == [4, 2]
    gone = Shard("/nowhere.tar", "/nowhere.tar", 0)
    outcome = worker.try_shard(Trial(gone), done.append)
    assert outcome.error.startswith("FileNotFoundError") and "nowhere" in outcome.error
    assert not outcome.final and not outcome.transient and capfd.readouterr().err == ""
    assert WORKER_DIED not in outcome.error


class Broken:
    """The real explainer, with an error for images of one key."""

    def __init__(self, explainer: PromptExplainer, error: Exception, times: int) -> None:
        self.explainer, self.error, self.times = explainer, error, times
        self.device, self.embed_width = explainer.device, explainer.embed_width
        self.heat_order = explainer.heat_order
        self.squash, self.has_prompts = explainer.squash, explainer.has_prompts

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        if self.times and any(sample.key == "poison" for sample in samples):
            self.times -= 1
            raise self.error
        return self.explainer(samples)


@pytest.mark.parametrize(("times", "commits"), [(1, 3), (99, 2)])
def test_an_exception_is_tried_again_and_touches_no_other_shard(
    times: int,
    commits: int,
    good: bytes,
    tar: MakeTar,
    labelled: Labelled,
    explainer: PromptExplainer,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = write_shards(a=good, b=tar(labelled("poison", ["dog"])), c=good)
    broken = Broken(explainer, RuntimeError("boom\nand its causes"), times)
    ledger = annotate(make_config(input=folder), lambda config: Worker(config, lambda _: broken))
    assert len(ledger.committed()) == commits
    assert list(ledger.failures().values()) == ["RuntimeError: boom"] * (3 - commits)
    assert "boom" in capfd.readouterr().err
    for commit in ledger.commits():
        assert commit.attempt == (2 if commit.uri.endswith("b.tar") else 1)


def test_memory_that_suffices_for_single_pairs_is_enough(
    good: bytes,
    explainer: PromptExplainer,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    class Tiny(Broken):
        def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
            if sum(len(sample.wanted) for sample in samples) > 1:
                raise torch.OutOfMemoryError("no memory")
            return self.explainer(samples)

    config = make_config(input=write_shards(a=good))
    whole = annotate(config)
    halved = annotate(
        replace(config, output=config.output + "-halved"),
        lambda config: Worker(config, lambda _: Tiny(explainer, RuntimeError(), 0)),
    )
    assert [c.degraded for c in (*whole.commits(), *halved.commits())] == [False, True]
    for ours, theirs in zip(rows(halved, "annotations"), rows(whole, "annotations"), strict=True):
        assert (ours["key"], ours["prompt"]) == (theirs["key"], theirs["prompt"])
        (overlap,) = coco.iou([ours["segmentation"]], [theirs["segmentation"]], [0])
        assert overlap[0] > 0.99
