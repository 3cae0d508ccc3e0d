"""Batches of samples in, masks out."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch

import legrad
from pipeline.config import MaskConfig
from pipeline.inputs.prompts import PromptedSample
from pipeline.inputs.reader import DECODE_THREADS
from pipeline.inputs.stages import StageClock
from pipeline.models.explain import Maps, SampleExplainer
from pipeline.models.halving import halves, in_halves
from pipeline.outputs.annotations import Annotated, Annotation
from pipeline.outputs.masks import Foreground, Mask, encode_masks
from pipeline.outputs.refinement.guides import completed
from pipeline.outputs.thresholding import threshold_maps
from pipeline.run.ordering import Priority, PriorityLock, no_op


@dataclass(frozen=True)
class _Mapped:
    """A sample and all its maps, or a part of them."""

    sample: PromptedSample
    maps: Maps


class Annotator:
    """Has samples explained on one device and makes masks of the maps.

    Several threads may annotate at once. One at a time has the model, the lowest priority number
    first, and one at a time makes masks on the device, so that their number adds nothing to the
    memory needed there; what the others do on the CPU overlaps with that.
    """

    def __init__(self, explain: SampleExplainer, mask: MaskConfig) -> None:
        """Take what makes the maps, and how masks are made of them."""
        self.explain, self.mask = explain, mask
        self._model_lock = PriorityLock()
        self._masking = threading.Lock()
        threads = max(DECODE_THREADS, torch.get_num_threads())
        self._guides = ThreadPoolExecutor(threads, thread_name_prefix="guide")

    def annotate(
        self,
        batch: Sequence[PromptedSample],
        priority: Priority = (),
        on_change: Callable[[], None] = no_op,
        clock: StageClock | None = None,
    ) -> list[Annotated]:
        """The annotations of every sample.

        All prompts of the batch share one forward pass of the vision tower. A batch that does not
        fit into the device's memory is halved, down to one prompt of one image; masks are made
        when all maps of an image are there, down to one image where its prompts compete.

        Args:
            batch: in the order of the results.
            priority: of the batch among those that wait for the model.
            on_change: called while it waits, whenever another batch has had the model.
            clock: is told the time that it takes.
        """
        clock = clock or StageClock()
        asked = [sample for sample in batch if self.explain.has_prompts(sample)]
        device = self.explain.device

        def explain(samples: Sequence[PromptedSample]) -> list[Maps]:
            with self._model_lock.take(priority, on_change), clock.measure("model"):
                return self.explain(samples)

        def mask(mapped: Sequence[_Mapped]) -> list[Annotated]:
            with clock.measure("mask"):
                return self._annotated([m.sample for m in mapped], [m.maps for m in mapped])

        explained: dict[int, list[Maps]] = defaultdict(list)
        degraded: set[int] = set()
        for sample, maps, in_parts in in_halves(asked, explain, _halve, device):
            explained[sample.index].append(maps)
            degraded |= {sample.index} if in_parts else set()
        complete = [_Mapped(s, Maps.joined(explained.pop(s.index))) for s in asked]
        if self.mask.refine != "none":
            with clock.measure("mask"):
                complete = list(self._guides.map(partial(self._guided, clock), complete))
        results = {sample.index: Annotated([]) for sample in batch}
        for mapped, annotated, in_parts in in_halves(complete, mask, self._halve_maps, device):
            index = mapped.sample.index
            before = results[index]
            results[index] = Annotated(
                before.annotations + annotated.annotations,
                before.cut + annotated.cut,
                in_parts or index in degraded,
                before.absent + annotated.absent,
            )
        return [results[sample.index] for sample in batch]

    def _guided(self, clock: StageClock, mapped: _Mapped) -> _Mapped:
        """With what the guide of the image still lacks, where anything was found to be there."""
        guide = mapped.sample.guide
        if guide is None or not mapped.maps.prompts:
            return mapped
        with clock.helping("mask"):
            return replace(mapped, sample=replace(mapped.sample, guide=completed(guide, self.mask)))

    def _halve_maps(self, mapped: Sequence[_Mapped]) -> list[list[_Mapped]]:
        """Two halves of the samples, or of the maps of a single one, unless they compete."""
        if len(mapped) > 1 or self.mask.overlap == "winner":
            return halves(mapped)
        (only,) = mapped
        return [[replace(only, maps=half)] for half in only.maps.halves()]

    def _annotated(
        self, samples: Sequence[PromptedSample], maps: Sequence[Maps]
    ) -> list[Annotated]:
        """Masks for the maps of each sample."""
        raw = torch.cat([of_sample.raw for of_sample in maps])
        ranges = zip(raw.amin((1, 2)).tolist(), raw.amax((1, 2)).tolist(), strict=True)
        heats = (legrad.minmax(raw) * 255).round().to(torch.uint8).cpu()
        results = zip(ranges, heats, self._masks(samples, maps), strict=True)
        made = []
        for of_sample in maps:
            named = zip(of_sample.prompts, of_sample.texts, of_sample.scores, strict=True)
            annotations = [
                Annotation(
                    prompt=prompt,
                    text=text,
                    score=score,
                    raw_min=low,
                    raw_max=peak,
                    heat=heat,
                    mask=mask if isinstance(mask, Mask) else None,
                    dropped=mask if isinstance(mask, str) else None,
                )
                for (prompt, text, score), ((low, peak), heat, mask) in zip(
                    named, islice(results, len(of_sample.prompts)), strict=True
                )
            ]
            made.append(Annotated(annotations, of_sample.cut, absent=of_sample.absent))
        return made

    def _masks(
        self, samples: Sequence[PromptedSample], maps: Sequence[Maps]
    ) -> Iterator[Mask | str]:
        """The masks of all maps in order; those of images of one size are made together."""
        sizes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, sample in enumerate(samples):
            sizes[sample.height, sample.width].append(place)
        masks: dict[int, Iterator[Mask | str]] = {}
        for size, places in sizes.items():
            mapped = [_Mapped(samples[place], maps[place]) for place in places]
            parts = self._foregrounds(mapped, *size)
            together = iter([m for part in parts for m in encode_masks(part, self.mask.min_area)])
            masks |= dict.fromkeys(places, together)
        for place, of_sample in enumerate(maps):
            yield from islice(masks[place], len(of_sample.prompts))

    def _foregrounds(
        self, mapped: Sequence[_Mapped], height: int, width: int
    ) -> Iterator[Foreground]:
        maps = [of_sample.maps for of_sample in mapped]
        guides = [of_sample.sample.guide for of_sample in mapped]
        counts = [len(of_sample.prompts) for of_sample in maps]
        raw = torch.cat([of_sample.raw for of_sample in maps])
        thresholds = [prompt.threshold for of_sample in maps for prompt in of_sample.prompts]
        order = self.explain.heat_order
        parts = threshold_maps(raw, height, width, thresholds, self.mask, order, counts, guides)
        while True:
            with self._masking:
                part = next(parts, None)
            if part is None:
                return
            yield part


def _halve(samples: Sequence[PromptedSample]) -> list[list[PromptedSample]]:
    """Two halves of the samples, or of the prompts of a single one; nothing where that is all."""
    if len(samples) > 1:
        return halves(samples)
    (sample,) = samples
    return [[replace(sample, wanted=half)] for half in halves(sample.wanted)]
