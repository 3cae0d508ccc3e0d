"""A CLIP with an explainer over it: samples in, one map and score per prompt out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

import legrad
from pipeline.config import AnnotateConfig
from pipeline.inputs.prompts import Prompt, PromptedSample, PromptReader, of_category
from pipeline.models.loading import LoadedClip
from pipeline.models.text import TextEncoder


@dataclass(frozen=True)
class Maps:
    """What the model says about the prompts of one sample.

    Attributes:
        prompts: what was looked for.
        raw: their maps on the patch grid.
        scores: cosines of the image's embedding with those of the texts.
        texts: the text of each prompt that fits the image best, as it was encoded.
        cut: prompts that were longer than the model's context.
    """

    prompts: list[Prompt]
    raw: Float[Tensor, "prompt rows columns"]
    scores: list[float]
    texts: list[str]
    cut: int

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
        """Whether there is anything to look for in the sample."""

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
        self._explainer = self._model.explainer()
        self._vocabulary = (
            _Vocabulary(config, self._encode_text)
            if config.prompts.source == "vocabulary"
            else None
        )

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
        if self._vocabulary is None:
            asked = [sample.wanted for sample in samples]
            text, owner, cut = self._texts(asked)
            embedding, raw = self._explainer.explain(images, text, owner)
        else:
            encoding = self._explainer.encode(images)
            embedding = encoding.embedding
            asked = self._vocabulary.most_similar(embedding)
            text, owner, cut = self._texts(asked)
            raw = self._explainer.maps(encoding, text, owner)
        scores = (embedding[owner] * text).sum(-1)
        return self._per_sample(asked, raw, scores, cut)

    def _texts(
        self, asked: Sequence[Sequence[Prompt]]
    ) -> tuple[Float[Tensor, "text embed"], Int[Tensor, " text"], list[bool]]:
        """Embeddings of all texts of all prompts, the image of each, and which prompts are cut."""
        owner = [i for i, prompts in enumerate(asked) for p in prompts for _ in p.texts]
        text, cut = self._encode_text([prompt for prompts in asked for prompt in prompts])
        return text, torch.tensor(owner, device=self._model.device, dtype=torch.long), cut

    def _per_sample(
        self,
        asked: Sequence[list[Prompt]],
        raw: Float[Tensor, "text rows columns"],
        scores: Float[Tensor, " text"],
        cut: Sequence[bool],
    ) -> list[Maps]:
        """Join the texts of each prompt: the maximum of their maps, the best of their scores."""
        prompts = [prompt for of_sample in asked for prompt in of_sample]
        texts = [len(prompt.texts) for prompt in prompts]
        joined = raw  # on a GPU, an operation per prompt would cost more than the maps
        if max(texts, default=1) > 1:
            joined = torch.stack([part.amax(0) for part in _split(raw, texts)])
        best = [max(enumerate(part.tolist()), key=_score) for part in _split(scores.cpu(), texts)]
        counts = [len(of_sample) for of_sample in asked]
        results, start = [], 0
        for of_sample, maps in zip(asked, _split(joined, counts), strict=True):
            end = start + len(of_sample)
            shown = [
                self._encode_text.shown(prompt, prompt.texts[which])
                for prompt, (which, _) in zip(of_sample, best[start:end], strict=True)
            ]
            of_best = [score for _, score in best[start:end]]
            results.append(Maps(of_sample, maps, of_best, shown, sum(cut[start:end])))
            start = end
        return results


class _Vocabulary:
    """All classes of the class file, to choose from by the embedding of an image."""

    def __init__(self, config: AnnotateConfig, encode_text: TextEncoder) -> None:
        classes = PromptReader(config.prompts).classes
        self._prompts = [of_category(index, category) for index, category in enumerate(classes)]
        self._text, _ = encode_text(self._prompts)
        owner = [i for i, prompt in enumerate(self._prompts) for _ in prompt.texts]
        self._owner = torch.tensor(owner, device=self._text.device)
        self._top_k, self._presence = config.prompts.top_k, config.prompts.presence

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
                if cosine > self._presence
            ]
            for classes, cosines in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _split(values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return list(torch.split_with_sizes(values, list(sizes)))


def _score(numbered: tuple[int, float]) -> float:
    return numbered[1]
