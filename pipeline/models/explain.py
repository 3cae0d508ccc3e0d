"""A CLIP with an explainer over it: samples in, one map and score per prompt out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

import legrad
from pipeline.config import NO_FILTER, AnnotateConfig, PromptConfig
from pipeline.inputs.prompts import Absent, Prompt, PromptedSample, PromptReader
from pipeline.models.loading import LoadedClip
from pipeline.models.text import TextEncoder


@dataclass(frozen=True)
class Maps:
    """What the model says about the prompts of one sample.

    Attributes:
        prompts: what was looked for, but for what is absent.
        raw: their maps on the patch grid.
        scores: cosines of the image's embedding with those of the texts.
        texts: the text of each prompt that fits the image best, as it was encoded, or the name of
            its sound.
        cut: prompts that were longer than the model's context, absent ones too.
        absent: what was looked for, and scores too low for a map.
    """

    prompts: list[Prompt]
    raw: Float[Tensor, "prompt rows columns"]
    scores: list[float]
    texts: list[str]
    cut: int
    absent: list[Absent] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence[Maps]) -> Maps:
        """The maps of one sample whose prompts were explained in parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            prompts=[prompt for part in parts for prompt in part.prompts],
            raw=torch.cat([part.raw for part in parts]),
            scores=[score for part in parts for score in part.scores],
            texts=[text for part in parts for text in part.texts],
            cut=sum(part.cut for part in parts),
            absent=[pair for part in parts for pair in part.absent],
        )

    def halves(self) -> list[Maps]:
        """Those of the first half of the prompts and those of the second; empty for one prompt."""
        middle = len(self.prompts) // 2
        sides = [slice(middle), slice(middle, None)] if middle else []
        return [
            Maps(
                prompts=self.prompts[side],
                raw=self.raw[side],
                scores=self.scores[side],
                texts=self.texts[side],
                cut=0 if number else self.cut,
                absent=[] if number else self.absent,
            )
            for number, side in enumerate(sides)
        ]


@runtime_checkable
class SampleExplainer(Protocol):
    """What makes maps of samples, on one device."""

    @property
    def device(self) -> torch.device:
        """Where the maps are."""

    @property
    def embed_width(self) -> int:
        """Length of the vectors that samples may bring as prompts."""

    @property
    def heat_order(self) -> legrad.HeatOrder:
        """The method's steps from raw maps to heat."""

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """Resize an image to the model's input."""

    def has_prompts(self, sample: PromptedSample) -> bool:
        """Whether there is anything to look for in the sample. Several threads call it."""

    def __call__(self, samples: Sequence[PromptedSample]) -> list[Maps]:
        """Maps of every prompt of every sample; not thread-safe."""


class PromptExplainer:
    """Explains the prompts of samples, or the classes of a vocabulary, with one forward pass."""

    def __init__(self, config: AnnotateConfig) -> None:
        """Load the model.

        Raises:
            ModelError: the model or its weights do not load.
            ConfigError: the method cannot explain this model, or the class file is wrong.
        """
        self._model = LoadedClip(config)
        self._encode_text = self._model.encode_text
        if config.prompts.hears:
            _ = self._model.encode_sound  # to find out now, and not at the first sound
        self._explainer = self._model.explainer()
        self._vocabulary = (
            _Vocabulary(config, self._encode_text)
            if config.prompts.source == "vocabulary"
            else None
        )
        self._prompts = config.prompts

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    @property
    def embed_width(self) -> int:
        """Length of the model's embeddings."""
        return self._encode_text.embed_width

    @property
    def heat_order(self) -> legrad.HeatOrder:
        """The method's steps from raw maps to heat."""
        return self._explainer.heat_order

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """Resize an image to the model's input, without cropping."""
        return self._model.squash(pixels)

    def has_prompts(self, sample: PromptedSample) -> bool:
        """Whether there is anything to look for in the sample."""
        return bool(sample.wanted) or self._vocabulary is not None

    def __call__(self, samples: Sequence[PromptedSample]) -> list[Maps]:
        """Maps of every prompt of every sample; not thread-safe."""
        images = self._model.images(torch.stack([sample.pixels for sample in samples]))
        asked: Sequence[list[Prompt]] = [sample.wanted for sample in samples]
        if self._vocabulary is None and not self._prompts.filters:
            text, owner, cut = self._texts(asked)
            embedding, raw = self._explainer.explain(images, text, owner)
            best = _best((embedding[owner] * text).sum(-1), asked)
            return self._per_sample(asked, raw, best, [True] * len(best), cut)
        encoding = self._explainer.encode(images)
        if self._vocabulary is not None:
            asked = self._vocabulary.most_similar(encoding.embedding)
        text, owner, cut = self._texts(asked)
        best = _best((encoding.embedding[owner] * text).sum(-1), asked)
        present = _present(self._prompts, asked, best)
        if not all(present):
            flags = zip((prompt for prompts in asked for prompt in prompts), present, strict=True)
            rows = [is_there for prompt, is_there in flags for _ in prompt.wordings]
            which = torch.tensor(rows, device=text.device)
            text, owner = text[which], owner[which]
        raw = self._explainer.maps(encoding, text, owner)
        return self._per_sample(asked, raw, best, present, cut)

    def _texts(
        self, asked: Sequence[Sequence[Prompt]]
    ) -> tuple[Float[Tensor, "text embed"], Int[Tensor, " text"], list[bool]]:
        """Embeddings of all texts of all prompts, the image of each, and which prompts are cut."""
        owner = [i for i, prompts in enumerate(asked) for p in prompts for _ in p.wordings]
        text, cut = self._encode_text([prompt for prompts in asked for prompt in prompts])
        return text, torch.tensor(owner, device=self._model.device, dtype=torch.long), cut

    def _per_sample(
        self,
        asked: Sequence[list[Prompt]],
        raw: Float[Tensor, "text rows columns"],
        best: Sequence[tuple[int, float]],
        present: Sequence[bool],
        cut: Sequence[bool],
    ) -> list[Maps]:
        """Join the texts of each prompt that is present: the maximum of their maps.

        Args:
            asked: the prompts of each sample.
            raw: maps of the texts of those that are present.
            best: text of each prompt that fits best, and its score.
            present: whether each prompt is.
            cut: whether each prompt was.
        """
        numbered = iter(range(len(best)))
        places = [[next(numbered) for _ in of_sample] for of_sample in asked]
        prompts = [prompt for of_sample in asked for prompt in of_sample]
        kept = [[place for place in of_sample if present[place]] for of_sample in places]
        texts = [len(prompts[place].wordings) for of_sample in kept for place in of_sample]
        joined = raw  # on a GPU, an operation per prompt would cost more than the maps
        if max(texts, default=1) > 1:
            joined = torch.stack([part.amax(0) for part in _split(raw, texts)])
        maps = _split(joined, [len(of_sample) for of_sample in kept])
        return [
            Maps(
                prompts=[prompts[place] for place in there],
                raw=of_sample,
                scores=[best[place][1] for place in there],
                texts=[self._shown(prompts[place], best[place][0]) for place in there],
                cut=sum(cut[place] for place in all_of_it),
                absent=[
                    Absent(prompts[place], best[place][1])
                    for place in all_of_it
                    if not present[place]
                ],
            )
            for of_sample, there, all_of_it in zip(maps, kept, places, strict=True)
        ]

    def _shown(self, prompt: Prompt, which: int) -> str:
        wording = prompt.wordings[which]
        return self._encode_text.shown(prompt, wording) if which < len(prompt.texts) else wording


class _Vocabulary:
    """All classes of the class file, to choose from by the embedding of an image."""

    def __init__(self, config: AnnotateConfig, encode_text: TextEncoder) -> None:
        reader = PromptReader(config.prompts)
        self._prompts = [reader.of(index, each) for index, each in enumerate(reader.classes)]
        self._text, _ = encode_text(self._prompts)
        owner = [i for i, prompt in enumerate(self._prompts) for _ in prompt.wordings]
        self._owner = torch.tensor(owner, device=self._text.device)
        self._top_k = config.prompts.top_k

    def most_similar(self, images: Float[Tensor, "image embed"]) -> list[list[Prompt]]:
        """The classes that fit each image best, by their best name; most similar first."""
        by_name = images @ self._text.T
        nothing = by_name.new_full((len(images), len(self._prompts)), -torch.inf)
        similar = nothing.scatter_reduce(1, self._owner.expand_as(by_name), by_name, "amax")
        best = similar.topk(min(self._top_k, similar.shape[1]), dim=1)
        return [
            [
                replace(self._prompts[which], index=rank)
                for rank, (which, cosine) in enumerate(zip(classes, cosines, strict=True))
                if cosine > NO_FILTER  # no number is not
            ]
            for classes, cosines in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _best(
    scores: Float[Tensor, " text"], asked: Sequence[Sequence[Prompt]]
) -> list[tuple[int, float]]:
    """Of every prompt the text with the highest score, and that score."""
    texts = [len(prompt.wordings) for prompts in asked for prompt in prompts]
    return [max(enumerate(part.tolist()), key=_score) for part in _split(scores.cpu(), texts)]


def _present(
    config: PromptConfig, asked: Sequence[Sequence[Prompt]], best: Sequence[tuple[int, float]]
) -> list[bool]:
    """Whether the score of each prompt exceeds its level; one that is no number counts as there.

    What comes of it is then told as what it is, a map that is not finite.
    """
    if not config.filters:
        return [True] * len(best)
    run = NO_FILTER if config.presence is None else config.presence
    levels = [
        run if prompt.presence is None else prompt.presence
        for prompts in asked
        for prompt in prompts
    ]
    return [
        level == NO_FILTER or not score <= level
        for level, (_, score) in zip(levels, best, strict=True)
    ]


def _split(values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return list(torch.split_with_sizes(values, list(sizes)))


def _score(numbered: tuple[int, float]) -> float:
    return numbered[1]
