"""The way of the bench: images with known masks through what a run makes its masks with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

import legrad
from pipeline.config import AnnotateConfig
from pipeline.demo.mask_scores import Pair, Truth, coco_scores, overlap_scores, point_miou, signals
from pipeline.inputs.prompts import Prompt, PromptedSample
from pipeline.inputs.reader import ShardReader, Want, in_batches
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import Shard
from pipeline.inputs.stages import StageClock
from pipeline.models.explain import Maps, SampleExplainer
from pipeline.outputs.refinement.guides import guide_maker
from pipeline.run.annotator import Annotator

COVERAGE_LEVEL = 0.45
"""Threshold of the bound by bilinear coverage, where it is highest on the demo's scenes."""


class Remembering:
    """An explainer that makes the maps of a batch once, however often it is asked for them."""

    def __init__(self, explain: SampleExplainer) -> None:
        """Take what makes them."""
        self._explain = explain
        self._maps: dict[tuple[str, ...], list[Maps]] = {}

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self._explain.device

    @property
    def embed_width(self) -> int:
        """Length of the vectors that samples may bring as prompts."""
        return self._explain.embed_width

    @property
    def heat_order(self) -> legrad.HeatOrder:
        """The method's steps from raw maps to heat."""
        return self._explain.heat_order

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """Resize an image to the model's input."""
        return self._explain.squash(pixels)

    def has_prompts(self, sample: PromptedSample) -> bool:
        """Whether there is anything to look for in the sample."""
        return self._explain.has_prompts(sample)

    def __call__(self, samples: Sequence[PromptedSample]) -> list[Maps]:
        """Maps of every prompt of every sample."""
        texts = (text for sample in samples for prompt in sample.wanted for text in prompt.texts)
        batch = (*(sample.key for sample in samples), "", *texts)
        if batch not in self._maps:
            self._maps[batch] = self._explain(samples)
        return self._maps[batch]


@dataclass(frozen=True)
class Run:
    """The masks of one recipe.

    Attributes:
        pairs: in the order of the images, and of the classes in each.
        seconds: an image takes, by stage (`model`, `mask`, with its regions), on this machine.
    """

    pairs: list[Pair]
    seconds: dict[str, float]


class Bench:
    """Images with known masks, read once, and the maps of their classes, made once."""

    def __init__(
        self,
        config: AnnotateConfig,
        explain: SampleExplainer,
        shards: Sequence[Shard],
        prompts_of: Want[list[Prompt]],
        truth_of: Callable[[str], Truth],
    ) -> None:
        """Read the images as a run does.

        Args:
            config: of the run; its mask settings may be others in `annotate`.
            explain: makes the maps.
            shards: with the images.
            prompts_of: what is looked for in a sample: the classes that are in it.
            truth_of: what is in the image of a key.
        """
        self.config, self.explain = config, Remembering(explain)
        guide = guide_maker(config.mask, explain.has_prompts, config.enough)
        read = ShardReader.of(config, prompts_of, explain.squash, guide, config.enough)
        self.batches: list[list[PromptedSample]] = [
            [sample for sample in batch if isinstance(sample, Sample)]
            for shard in shards
            for batch in in_batches(read(shard), config.engine.batch_size)
        ]
        self.truths = [truth_of(sample.key) for batch in self.batches for sample in batch]

    def annotate(self, first: int | None = None, **mask: Any) -> Run:
        """Masks of every class, by the annotator of a run.

        Args:
            first: only of so many images, the first ones.
            mask: settings of `MaskConfig` that differ from those of the configuration.
        """
        annotator = Annotator(self.explain, replace(self.config.mask, **mask))
        clock, pairs, done = StageClock(), list[Pair](), 0
        for batch in self.batches:
            taken = batch[: None if first is None else max(0, first - done)]
            for annotated in annotator.annotate(taken, clock=clock) if taken else ():
                pairs += [Pair.of(done, self.truths[done], a) for a in annotated.annotations]
                done += 1
        seconds = {name: clock.seconds[name] / done for name in ("model", "mask")}
        return Run(pairs, seconds)


def scores(run: Run, truths: Sequence[Truth]) -> dict[str, Any]:
    """All scores of a run over scenes."""
    return {
        **overlap_scores(run.pairs),
        **coco_scores(run.pairs),
        "p_miou": point_miou(run.pairs, truths),
        "without_mask": sum(pair.annotation.mask is None for pair in run.pairs),
        "rank_correlation_with_iou": signals(run.pairs),
        "seconds_per_image": run.seconds,
    }


def bounds(pairs: Sequence[Pair], grid: int) -> dict[str, dict[str, float]]:
    """What maps on a grid could reach at best, if they held the truth.

    Args:
        pairs: for their true masks.
        grid: patches along a side.

    Returns:
        `patches`: true masks rounded to whole patches; `coverage`: the share of each patch that is
        covered, enlarged as maps are, above `COVERAGE_LEVEL`.
    """
    rounded, smooth = [], []
    for pair in pairs:
        share = coverage(pair.truth, grid)
        height, width = pair.truth.shape
        whole = Image.fromarray(share > 0.5).resize((width, height), Image.Resampling.NEAREST)
        rounded.append(replace(pair, found=np.array(whole, dtype=bool)))
        heat = functional.interpolate(
            torch.from_numpy(share)[None, None], (height, width), mode="bilinear"
        )
        smooth.append(replace(pair, found=heat[0, 0].numpy() > COVERAGE_LEVEL))
    return {"patches": overlap_scores(rounded), "coverage": overlap_scores(smooth)}


def coverage(
    mask: Bool[np.ndarray, "height width"], grid: int
) -> Float[np.ndarray, "{grid} {grid}"]:
    """The share of each cell of a square grid that a mask covers, 0..1."""
    shares = Image.fromarray(mask.astype(np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return np.array(shares)
