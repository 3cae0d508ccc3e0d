"""A model that turns a batch of samples into masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import legrad
from pipeline.config import AnnotateConfig
from pipeline.images import Preprocess
from pipeline.masks import Mask, make_masks
from pipeline.models import choose_device, load_model
from pipeline.prompts import Prompt, TextEncoder
from pipeline.samples import Sample

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Annotation:
    """What was found for one prompt in one image.

    Attributes:
        prompt: what was looked for.
        score: cosine of the image's and the prompt's embedding.
        raw_max: highest value of the raw map, comparable between images.
        heat: the min-max-normalised patch grid in 0..255.
        mask: the foreground; None where nothing exceeds the threshold.
    """

    prompt: Prompt
    score: float
    raw_max: float
    heat: UInt8[Tensor, "rows columns"]
    mask: Mask | None

    @property
    def dropped(self) -> str | None:
        """Why there is no mask."""
        return "flat_map" if self.mask is None else None


class Annotator:
    """A CLIP on one device, an explainer over it, and the settings for masks."""

    def __init__(self, config: AnnotateConfig) -> None:
        """Load the model.

        Raises:
            ModelError: the model or its weights do not load, or the method does not support it.
        """
        self.device = choose_device(config.engine.device)
        self.dtype = DTYPES[config.model.precision]
        self.model = load_model(config.model, self.device, self.dtype)
        self.explainer = legrad.build(
            config.method,
            self.model,
            config.layers,
            engine=config.algorithm,
            memory_budget=config.engine.memory_budget,
        )
        self.preprocess = Preprocess(self.model, config.model.image_size)
        self.encode_text = TextEncoder(self.model, config.model.name, config.prompts.templates)
        self.threshold = config.mask.threshold

    def annotate(self, batch: Sequence[Sample]) -> list[list[Annotation]]:
        """The annotations of every sample, in the order of its prompts.

        All prompts of the batch share one forward pass of the vision tower.
        """
        prompts = [prompt for sample in batch for prompt in sample.prompts]
        if not prompts:
            return [[] for _ in batch]
        raw, scores = self._explain(batch, prompts)
        peaks = raw.amax((1, 2)).tolist()
        heats = (legrad.minmax(raw) * 255).round().to(torch.uint8).cpu()
        annotations: list[list[Annotation]] = []
        start = 0
        for sample in batch:
            end = start + len(sample.prompts)
            masks = make_masks(raw[start:end], sample.height, sample.width, self.threshold)
            rows = zip(
                sample.prompts,
                scores[start:end],
                peaks[start:end],
                heats[start:end],
                masks,
                strict=True,
            )
            annotations.append([Annotation(*row) for row in rows])
            start = end
        return annotations

    def _explain(
        self, batch: Sequence[Sample], prompts: Sequence[Prompt]
    ) -> tuple[Float[Tensor, "prompt rows columns"], list[float]]:
        """Raw maps and scores of all prompts of the batch."""
        owner = [i for i, sample in enumerate(batch) for _ in sample.prompts]
        image_index = torch.tensor(owner, device=self.device)
        pixels = torch.stack([sample.pixels for sample in batch])
        images = self.preprocess.normalise(pixels, self.device, self.dtype)
        text = self.encode_text(prompts)
        embedding, raw = self.explainer.explain(images, text, image_index)
        return raw, (embedding[image_index] * text).sum(-1).tolist()
