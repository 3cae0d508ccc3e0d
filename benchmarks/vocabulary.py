"""What it costs to choose the classes of an image from a large vocabulary."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml

from benchmarks.timing import interleaved, table
from pipeline.config import AnnotateConfig, MaskConfig, PromptConfig
from pipeline.demo.run import SHARDS
from pipeline.demo.sprites import CLASSES
from pipeline.inputs.prompts import PromptedSample, PromptReader
from pipeline.inputs.reader import ShardReader
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import PromptExplainer
from pipeline.run.annotator import Annotator

BATCH, TOP_K = 16, 3


def measure(classes: int, rounds: int, threads: int) -> dict[str, float]:
    """Seconds per image for the same masks, asked for by name and chosen from a vocabulary.

    Args:
        classes: size of the vocabulary; the demo's classes and made-up ones.
        rounds: how often each is measured, in turns.
        threads: PyTorch's.
    """
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        file = Path(folder, "classes.yaml")
        file.write_text(yaml.safe_dump(_vocabulary(classes)))
        chosen = AnnotateConfig(
            prompts=PromptConfig(source="vocabulary", classes=str(file), top_k=TOP_K, presence=-1.0)
        )
        vocabulary = PromptExplainer(chosen)
    named = PromptExplainer(AnnotateConfig())
    samples = _samples(named)
    asked = _with_same_prompts(samples, vocabulary)
    figures = interleaved(
        {
            "labels": lambda: _seconds(named, asked),
            "vocabulary": lambda: _seconds(vocabulary, samples),
        },
        rounds,
    )
    labels, picked = figures["labels"]["s"], figures["vocabulary"]["s"]
    return {
        "labels_ms": 1e3 * labels / len(samples),
        "vocabulary_ms": 1e3 * picked / len(samples),
        "ratio": picked / labels,
    }


def markdown(results: Mapping[str, float]) -> str:
    """The table."""
    rows = [
        ["named", f"{results['labels_ms']:.1f}", "1"],
        ["chosen", f"{results['vocabulary_ms']:.1f}", f"{results['ratio']:.2f}"],
    ]
    return table(["prompts", "ms per image", "ratio"], rows)


def _vocabulary(classes: int) -> list[dict[str, object]]:
    names = [*CLASSES, *(f"made-up thing {n}" for n in range(classes))][:classes]
    return [{"id": number, "name": name} for number, name in enumerate(names, 1)]


def _samples(explain: PromptExplainer) -> list[PromptedSample]:
    prompts_of = PromptReader(PromptConfig())
    read = ShardReader(lambda raw: prompts_of(raw.fields), explain.squash)
    samples = chain.from_iterable(read(shard) for shard in find_shards([str(SHARDS)]))
    return [sample for sample in samples if isinstance(sample, Sample)]


def _with_same_prompts(
    samples: Sequence[PromptedSample], explain: PromptExplainer
) -> list[PromptedSample]:
    """The samples with the prompts that the vocabulary chooses for them."""
    return [
        replace(sample, wanted=maps.prompts)
        for start in range(0, len(samples), BATCH)
        for sample, maps in zip(
            samples[start : start + BATCH], explain(samples[start : start + BATCH]), strict=True
        )
    ]


def _seconds(explain: PromptExplainer, samples: Sequence[PromptedSample]) -> dict[str, float]:
    annotator = Annotator(explain, MaskConfig())
    started = time.perf_counter()
    for start in range(0, len(samples), BATCH):
        annotator.annotate(samples[start : start + BATCH])
    return {"s": time.perf_counter() - started}
